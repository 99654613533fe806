//! What a worker tells, and is told: a line of JSON each.

use std::io::Write;

use serde::{Deserialize, Serialize};

/// From a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Said {
    /// A refresh has come so far.
    Step(String),
    /// It goes no further until it is told to.
    Stopped(String),
    Begins(u64),
    /// The API has answered the request, for this user.
    Ok(u64, String),
    /// The API has answered something else.
    Status(u64, u16),
    Transient(u64, String),
    /// The request failed since nobody is logged in, with the reason.
    LoggedOut(u64, String),
    Failed(u64, String),
    /// The hook was called.
    Ended(String),
    PersistFailed,
    Persisted,
    LoginDone,
    LoginFailed(String),
    LogoutDone(String),
    LogoutFailed(String),
    /// Everything is drained.
    Bye,
}

impl Said {
    pub fn say(&self) {
        let line = serde_json::to_string(self).unwrap() + "\n";
        // One write, so that a line is there as a whole or not at all. Nobody listens any more if
        // the driver is gone; the order to end comes by another way.
        let _ = std::io::stdout().lock().write_all(line.as_bytes());
    }
}

/// To a worker. Its end is the end of its orders.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    StopAt(String),
    GoOn,
    /// The token response.
    LogIn(String),
    LogOut,
}
