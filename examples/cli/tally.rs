//! What many requests came to.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::trouble::{Kind, Trouble};

/// What a request came to.
pub enum Outcome {
    /// Trouble, if the status is 400 or above.
    Answered(StatusCode, Option<Trouble>),
    Failed(Trouble),
}

impl From<Trouble> for Outcome {
    fn from(trouble: Trouble) -> Self {
        Self::Failed(trouble)
    }
}

#[derive(Default)]
pub struct Tally {
    statuses: BTreeMap<u16, u64>,
    errors: BTreeMap<Kind, u64>,
    /// Each message once.
    troubles: BTreeMap<String, Trouble>,
}

impl Tally {
    pub fn add(&mut self, outcome: Outcome) {
        let trouble = match outcome {
            Outcome::Answered(status, trouble) => {
                *self.statuses.entry(status.as_u16()).or_default() += 1;
                trouble
            }
            Outcome::Failed(trouble) => {
                *self.errors.entry(trouble.kind).or_default() += 1;
                Some(trouble)
            }
        };
        if let Some(trouble) = trouble {
            self.troubles.entry(trouble.message.clone()).or_insert(trouble);
        }
    }

    pub fn requests(&self) -> u64 {
        self.statuses.values().chain(self.errors.values()).sum()
    }

    /// Of all, the most urgent.
    pub fn exit(&self) -> Exit {
        self.troubles.values().map(|trouble| trouble.exit).max().unwrap_or(Exit::Success)
    }

    pub fn into_troubles(self) -> impl Iterator<Item = Trouble> {
        self.troubles.into_values()
    }

    pub fn json(&self, refreshes: u64, wall: Duration) -> Value {
        let errors = self.errors.iter().map(|(kind, n)| (kind.name(), n));
        json!({
            "requests": self.requests(),
            "status": self.statuses,
            "errors": errors.collect::<BTreeMap<_, _>>(),
            "refreshes": refreshes,
            "wall_ms": wall.as_millis(),
        })
    }

    pub fn summary(&self, refreshes: u64, wall: Duration) -> String {
        let counts = |counts: Vec<String>| match counts.join(", ") {
            none if none.is_empty() => "none".to_owned(),
            some => some,
        };
        let statuses = self.statuses.iter().map(|(status, n)| format!("{n} x {status}"));
        let errors = self.errors.iter().map(|(kind, n)| format!("{n} x {}", kind.name()));
        format!(
            "{} requests in {} ms: {}; errors: {}; refreshes: {refreshes}",
            self.requests(),
            wall.as_millis(),
            counts(statuses.collect()),
            counts(errors.collect()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_requests_the_most_urgent_counts() {
        let kinds = [Kind::Other, Kind::Network, Kind::Configuration, Kind::LoggedOut];
        let mut tally = Tally::default();
        tally.add(Outcome::Answered(StatusCode::OK, None));
        let mut exits = vec![tally.exit().code()];
        for kind in kinds {
            tally.add(Outcome::Failed(Trouble::new(kind, kind.name())));
            exits.push(tally.exit().code());
        }
        assert_eq!(exits, [0, 1, 4, 2, 3]);
    }
}
