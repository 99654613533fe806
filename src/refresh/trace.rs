//! What other processes are told of a session without its secrets: logged in or out, the last
//! refresh, the last failure.
//!
//! As yet there are no others, and nothing is kept. The transaction calls it where it belongs.

use crate::error::Error;

#[derive(Debug)]
pub(crate) struct Trace;

impl Trace {
    pub(crate) fn refreshed(&self) {}

    pub(crate) fn failed(&self, _error: &Error) {}
}
