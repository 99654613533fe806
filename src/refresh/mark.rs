//! What is noted before a refresh token is sent, and stays while its answer is missing.
//!
//! Kept in memory: it lets the next transaction of this process tell a rotation whose answer was
//! lost ([`RotationLost`](crate::LogoutReason::RotationLost)) from a revocation, and keeps it
//! from asking twice what the server has answered for good.

use crate::token::Tokens;

#[derive(Debug, Default)]
pub(crate) enum Mark {
    #[default]
    Nothing,
    /// The refresh token of these tokens was sent, and may be spent.
    Unanswered(Which),
    /// The server has refused it for good.
    Refused(Which, bool),
}

type Which = (u64, u64);

fn which(tokens: &Tokens) -> Which {
    (tokens.epoch, tokens.generation)
}

impl Mark {
    /// Notes that the refresh token of `tokens` is about to be sent. `true` if it had been sent
    /// before and never answered.
    pub(crate) fn set(&mut self, tokens: &Tokens) -> bool {
        let before = matches!(self, Self::Unanswered(sent) if *sent == which(tokens));
        *self = Self::Unanswered(which(tokens));
        before
    }

    /// The answer is known: nothing is open.
    pub(crate) fn clear(&mut self) {
        *self = Self::Nothing;
    }

    /// The server has refused the refresh token of `tokens`, which it may have spent itself.
    pub(crate) fn refuse(&mut self, tokens: &Tokens, maybe_spent: bool) {
        *self = Self::Refused(which(tokens), maybe_spent);
    }

    /// Whether the refresh token of `tokens` was refused for good, and if so, whether the server
    /// may have spent it.
    pub(crate) fn refused(&self, tokens: &Tokens) -> Option<bool> {
        match self {
            Self::Refused(refused, maybe_spent) if *refused == which(tokens) => Some(*maybe_spent),
            _ => None,
        }
    }
}
