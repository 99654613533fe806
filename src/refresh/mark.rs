//! What is noted before a refresh token is sent, and stays while its answer is missing.
//!
//! Kept in memory: it lets the next transaction of this process tell a rotation whose answer was
//! lost ([`RotationLost`](crate::LogoutReason::RotationLost)) from a revocation.

use crate::token::Tokens;

/// The tokens whose refresh token may have been spent without our knowing the answer.
#[derive(Debug, Default)]
pub(crate) struct Mark(Option<(u64, u64)>);

impl Mark {
    /// Notes that the refresh token of `tokens` is about to be sent. `true` if it had been sent
    /// before and never answered.
    pub(crate) fn set(&mut self, tokens: &Tokens) -> bool {
        let before = self.0.replace((tokens.epoch, tokens.generation));
        before == self.0
    }

    /// The answer is known: nothing is open.
    pub(crate) fn clear(&mut self) {
        self.0 = None;
    }
}
