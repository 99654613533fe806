//! What has happened to one family, in order.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// One event in the life of a family; see [`MockServer::history`](crate::MockServer::history).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// What happened.
    pub what: What,
    /// When, counted from the start of the server.
    pub at: Duration,
    /// Which generation it is about: the issued one, or that of the token presented.
    ///
    /// The login is generation 0, and each refresh begins the next.
    pub generation: u64,
}

/// One line, for people.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, generation) = (self.at.as_secs_f64(), self.generation);
        write!(f, "{at:9.3}s  generation {generation}: ")?;
        f.write_str(match self.what {
            What::Login => "issued at login",
            What::Rotated => "issued, the one before is spent",
            What::Refreshed => "issued, same refresh token",
            What::GraceReplay => "handed out again within the grace window",
            What::Reuse => "refresh token presented although spent",
            What::Revoked => "revoked",
            What::ContextRefused => "token refused in another context",
            What::Expired => "refresh token presented although expired",
        })
    }
}

/// What happened to a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum What {
    /// The user logged in, and the family began.
    Login,
    /// A refresh spent the refresh token and issued the next pair.
    Rotated,
    /// A refresh issued an access token and kept the refresh token (without rotation).
    Refreshed,
    /// A spent refresh token got its successors again, within the grace window.
    GraceReplay,
    /// A spent refresh token was presented, outside the grace window.
    Reuse,
    /// The family was revoked, on request or in consequence of a reuse.
    Revoked,
    /// A token came from another context than the login.
    ContextRefused,
    /// An expired refresh token was presented.
    Expired,
}
