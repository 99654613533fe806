//! That a login is over, noted where each program sees it, whatever its store still holds.
//!
//! Two things end one: the user (`.out`: a record of that login does not exist any more), and the
//! server's word on a refresh token (`.refused`: a record with that very token counts as logged
//! out, one with another token lives).

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::event::LogoutReason;
use crate::store::{Brief, Notes, StoreError, millis};
use crate::token::LoginId;

/// Why, and when, for a person who looks into the file.
#[derive(Deserialize, Serialize)]
struct Out {
    version: u32,
    reason: String,
    at: u64,
    by: String,
}

#[derive(Deserialize, Serialize)]
struct Refused {
    version: u32,
    reason: Reason,
    /// The refresh token's SHA-256.
    token: String,
    at: u64,
    by: String,
}

/// What the server's word meant.
#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Reason {
    Revoked,
    RotationLost,
    RefreshTokenExpired,
    /// Of a later version of the program.
    #[serde(other)]
    Other,
}

/// Notes that the user has logged out of `login`, a hash. For good: no later note changes it. Durable
/// on return.
pub(crate) fn note_out(notes: &Notes, login: &str, by: &str) -> Result<(), StoreError> {
    let (reason, by) = ("requested".to_owned(), by.to_owned());
    let out = Out { version: 1, reason, at: millis(SystemTime::now()), by };
    notes.write_once(&kind(login, OUT), &serde_json::to_vec(&out).unwrap_or_default())
}

/// Whether the user has logged out.
pub(crate) fn is_out(notes: &Notes, login: &LoginId) -> Result<bool, StoreError> {
    Ok(notes.read(&kind(&login.hash(), OUT))?.is_some())
}

/// Notes that the server has refused the refresh token of `brief` for good. Durable on return.
pub(crate) fn note_refused(
    notes: &Notes,
    brief: &Brief,
    reason: LogoutReason,
    by: &str,
) -> Result<(), StoreError> {
    let refused = Refused {
        version: 1,
        reason: match reason {
            LogoutReason::RotationLost => Reason::RotationLost,
            LogoutReason::RefreshTokenExpired => Reason::RefreshTokenExpired,
            _ => Reason::Revoked,
        },
        token: brief.refresh.clone().unwrap_or_default(),
        at: millis(SystemTime::now()),
        by: by.to_owned(),
    };
    let bytes = serde_json::to_vec(&refused).unwrap_or_default();
    notes.write(&kind(&brief.login.hash(), REFUSED), &bytes)
}

/// Why the refresh token of `brief` is of no use any more, if the server has said so.
pub(crate) fn refused(notes: &Notes, brief: &Brief) -> Result<Option<LogoutReason>, StoreError> {
    let Some(bytes) = notes.read(&kind(&brief.login.hash(), REFUSED))? else {
        return Ok(None);
    };
    let refused = serde_json::from_slice::<Refused>(&bytes).ok();
    let refused = refused.filter(|refused| Some(&refused.token) == brief.refresh.as_ref());
    Ok(refused.map(|refused| match refused.reason {
        Reason::Revoked | Reason::Other => LogoutReason::Revoked,
        Reason::RotationLost => LogoutReason::RotationLost,
        Reason::RefreshTokenExpired => LogoutReason::RefreshTokenExpired,
    }))
}

/// Forgets logins that ended long ago.
pub(crate) fn sweep(notes: &Notes) {
    notes.sweep(&[OUT, REFUSED], KEPT);
}

fn kind(login: &str, what: &str) -> String {
    format!("{login:.32}.{what}")
}

const OUT: &str = "out";
const REFUSED: &str = "refused";

/// A write that hung for a month does not turn up any more.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
