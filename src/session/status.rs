//! What a person wants to know of a session.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::event::LogoutReason;

/// How a session stands, from [`Session::status`](crate::Session::status). Holds no secret;
/// `Display` is a few readable lines.
#[derive(Clone, Debug)]
pub struct Status {
    pub(crate) store: String,
    pub(crate) endpoint: String,
    pub(crate) account: String,
    pub(crate) logged_in: bool,
    pub(crate) logout_reason: Option<LogoutReason>,
    pub(crate) received_at: Option<SystemTime>,
    pub(crate) expires_at: Option<SystemTime>,
    pub(crate) refreshes: u64,
    pub(crate) has_refresh_token: bool,
    pub(crate) cooldown: Option<Duration>,
}

impl Status {
    /// Whether somebody is logged in.
    pub fn is_logged_in(&self) -> bool {
        self.logged_in
    }

    /// Why nobody is, if a session ended while this program ran.
    pub fn logout_reason(&self) -> Option<LogoutReason> {
        self.logout_reason
    }

    /// Where the tokens are kept.
    pub fn store(&self) -> &str {
        &self.store
    }

    /// The account that the session was built for.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// When the access token was received, by the wall clock of the machine that did. `None` too
    /// for tokens that another program had put into the store.
    pub fn received_at(&self) -> Option<SystemTime> {
        self.received_at
    }

    /// When the access token ends, if the server said so.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.expires_at
    }

    /// How many refreshes this login has had, in all programs that share it.
    pub fn refreshes(&self) -> u64 {
        self.refreshes
    }

    /// How long no refresh is tried because the last one failed.
    pub fn cooldown(&self) -> Option<Duration> {
        self.cooldown
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.logged_in, self.logout_reason) {
            (true, _) => writeln!(f, "logged in as {:?}", self.account)?,
            (false, None) => writeln!(f, "not logged in as {:?}", self.account)?,
            (false, Some(why)) => writeln!(f, "logged out as {:?}: {why}", self.account)?,
        }
        writeln!(f, "token endpoint and client: {}", self.endpoint)?;
        write!(f, "tokens are kept in {}", self.store)?;
        if self.logged_in {
            write!(f, "\nrefreshes since the login: {}", self.refreshes)?;
            match self.expires_at.map(|end| end.duration_since(SystemTime::now())) {
                Some(Ok(left)) => write!(f, "\naccess token: {} s left", left.as_secs())?,
                Some(Err(_)) => f.write_str("\naccess token: expired")?,
                None => f.write_str("\naccess token: the server did not say how long it lives")?,
            }
            if !self.has_refresh_token {
                f.write_str("\nno refresh token: the login ends with the access token")?;
            }
        }
        if let Some(cooldown) = self.cooldown {
            write!(f, "\nthe last refresh failed; the next try is in {} ms", cooldown.as_millis())?;
        }
        Ok(())
    }
}
