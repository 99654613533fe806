//! What happened in a run, in the order in which the driver learned of it.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::said::Said;

pub struct Story {
    started: Instant,
    pub entries: Vec<(Duration, Noted)>,
}

/// Logins are told by their number. Some of it is only for people to read.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "read by Debug")]
pub enum Noted {
    Started(String),
    Said(String, Said),
    Killed(String),
    /// By itself, though nobody asked it to.
    Died(String),
    Deed(String),
    Expired,
    /// Tokens were issued for it; they are not stored yet.
    LogsIn(usize),
    LoggedIn(usize),
    LogsOut(usize),
    /// The call has returned; the newest tokens were of this generation by then.
    LoggedOut(usize, u64),
    /// What did not come in time.
    Missed(String),
}

impl Story {
    pub fn new() -> Self {
        Self { started: Instant::now(), entries: Vec::new() }
    }

    pub fn note(&mut self, what: Noted) {
        self.entries.push((self.started.elapsed(), what));
    }

    /// The step that the worker told of last.
    pub fn last_step(&self, worker: &str) -> Option<&str> {
        self.entries.iter().rev().find_map(|(_, noted)| match noted {
            Noted::Said(by, Said::Step(step)) if by == worker => Some(step.as_str()),
            _ => None,
        })
    }

    pub fn was_killed(&self, worker: &str) -> bool {
        self.entries.iter().any(|(_, noted)| matches!(noted, Noted::Killed(by) if by == worker))
    }

    /// For people.
    pub fn text(&self) -> String {
        self.entries.iter().fold(String::new(), |mut text, (at, noted)| {
            let _ = writeln!(text, "{:9.3}s {noted:?}", at.as_secs_f64());
            text
        })
    }
}
