//! How a login comes to nothing.

use crate::endpoint::RefreshError;
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

    /// It could not be asked for now.
    pub(super) fn unreachable(cause: RefreshError) -> Self {
        let retry_after = cause.retry_after();
        Self::unfinished(Unfinished::Unreachable, Some(cause.into())).with_retry_after(retry_after)
    }
}
