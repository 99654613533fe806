//! What is noted before a refresh token is sent, and counts until newer tokens are durable.
//!
//! It lets the next transaction, of whatever program, tell a rotation whose answer was lost
//! ([`RotationLost`](crate::LogoutReason::RotationLost)) from a revocation.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::store::{Brief, Notes, StoreError, millis};

/// A refresh token that was about to be sent, and may be spent.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Mark {
    version: u32,
    /// Whose it is, as a hash.
    login: String,
    generation: u64,
    /// The refresh token's SHA-256.
    token: String,
    /// When it was sent first, in milliseconds since 1970.
    pub(crate) at: u64,
    /// By which program.
    pub(crate) by: String,
}

impl Mark {
    /// The mark that stands for the refresh token of `brief`: it was sent, and no answer is known.
    /// One that can't be read may be that.
    pub(crate) fn of(notes: &Notes, brief: &Brief) -> Result<Option<Self>, StoreError> {
        let Some(bytes) = notes.read(KIND)? else {
            return Ok(None);
        };
        let mark = serde_json::from_slice(&bytes).unwrap_or_else(|_| Self::new(brief, ""));
        let stands = mark.login == brief.login.hash()
            && mark.generation == brief.generation
            && Some(&mark.token) == brief.refresh.as_ref();
        Ok(stands.then_some(mark))
    }

    /// Notes that the refresh token of `brief` is about to be sent. Durable on return.
    pub(crate) fn set(notes: &Notes, brief: &Brief, by: &str) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(&Self::new(brief, by)).unwrap_or_default();
        notes.write(KIND, &bytes)
    }

    /// It was not spent after all.
    pub(crate) fn clear(notes: &Notes) -> Result<(), StoreError> {
        notes.remove(KIND)
    }

    /// Newer tokens are durable: it means nothing any more.
    pub(crate) fn discard(notes: &Notes) {
        notes.discard(KIND);
    }

    fn new(brief: &Brief, by: &str) -> Self {
        Self {
            version: 1,
            login: brief.login.hash(),
            generation: brief.generation,
            token: brief.refresh.clone().unwrap_or_default(),
            at: millis(SystemTime::now()),
            by: by.to_owned(),
        }
    }
}

const KIND: &str = "mark";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::LoginId;

    #[test]
    fn a_mark_stands_for_one_refresh_token_alone() {
        let brief = |login: &str, generation, refresh: &str| {
            let (login, refresh) = (LoginId(login.to_owned()), Some(refresh.to_owned()));
            Brief { login, generation, refresh, key: None }
        };
        let notes = Notes::new(None);
        Mark::set(&notes, &brief("l", 7, "hash"), "program").unwrap();
        let stands = |brief: &Brief| Mark::of(&notes, brief).unwrap().map(|mark| mark.by);
        assert_eq!(stands(&brief("l", 7, "hash")).as_deref(), Some("program"));
        for other in [brief("other", 7, "hash"), brief("l", 8, "hash"), brief("l", 7, "other")] {
            assert_eq!(stands(&other), None, "{other:?}");
        }
        // One that can't be read may stand for any.
        notes.write(KIND, b"{").unwrap();
        assert_eq!(stands(&brief("l", 8, "hash")).as_deref(), Some(""));
    }
}
