//! How a login comes to nothing.

use crate::error::{Error, Unfinished};

impl Error {
    pub(super) fn login(what: impl Into<String>) -> Self {
        Self::unfinished(Unfinished::Failed(what.into()), None)
    }

    pub(super) fn denied() -> Self {
        Self::unfinished(Unfinished::Denied, None)
    }

    pub(super) fn login_timed_out() -> Self {
        Self::unfinished(Unfinished::TimedOut, None)
    }
}
