//! A family: everything that goes back to one login.

use std::fmt;
use std::time::Instant;

use serde::Serialize;

use crate::history::{Entry, What};

/// Names a family: all tokens that go back to one login.
///
/// Families are numbered from 1 in the order of their logins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct FamilyId(pub(crate) u64);

impl fmt::Display for FamilyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

pub(crate) struct Family {
    pub(crate) id: FamilyId,
    pub(crate) user: String,
    /// The values of the bound headers at login; `None` if the session is not bound.
    pub(crate) context: Option<Context>,
    pub(crate) alive: bool,
    /// By generation; never empty, the login is the first.
    pub(crate) steps: Vec<Step>,
    pub(crate) history: Vec<Entry>,
    started: Instant,
}

pub(crate) type Context = Vec<Option<Vec<u8>>>;

/// The tokens of one generation.
pub(crate) struct Step {
    pub(crate) access: String,
    pub(crate) access_until: Instant,
    pub(crate) refresh: String,
    pub(crate) refresh_until: Instant,
    /// When the refresh token was used up.
    pub(crate) spent: Option<Instant>,
}

impl Family {
    pub(crate) fn new(
        id: FamilyId,
        user: &str,
        context: Option<Context>,
        first: Step,
        started: Instant,
    ) -> Self {
        Self {
            id,
            user: user.to_owned(),
            context,
            alive: true,
            steps: vec![first],
            history: Vec::new(),
            started,
        }
    }

    pub(crate) fn generation(&self) -> usize {
        self.steps.len() - 1
    }

    pub(crate) fn record(&mut self, what: What, generation: usize, now: Instant) {
        self.history.push(Entry {
            what,
            at: now.saturating_duration_since(self.started),
            generation: generation as u64,
        });
    }

    /// Whether this changed anything.
    pub(crate) fn revoke(&mut self, now: Instant) -> bool {
        let was_alive = self.alive;
        if was_alive {
            self.alive = false;
            self.record(What::Revoked, self.generation(), now);
        }
        was_alive
    }

    pub(crate) fn in_context(&self, context: &Context) -> bool {
        self.context.as_ref().is_none_or(|bound| bound == context)
    }
}
