//! What happened how often.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tally(BTreeMap<String, u64>);

impl Tally {
    pub fn count(&mut self, what: impl Into<String>) {
        self.add(what, 1);
    }

    pub fn add(&mut self, what: impl Into<String>, times: u64) {
        *self.0.entry(what.into()).or_default() += times;
    }

    pub fn merge(&mut self, other: Self) {
        for (what, times) in other.0 {
            self.add(what, times);
        }
    }

    pub fn get(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or_default()
    }

    /// Those whose name begins so, with the rest of it.
    pub fn print(&self, title: &str, prefix: &str) {
        let of =
            self.0.iter().filter_map(|(what, times)| Some((what.strip_prefix(prefix)?, times)));
        let all: Vec<_> = of.map(|(what, times)| format!("{what} {times}")).collect();
        println!("{title:<18}{}", if all.is_empty() { "none".to_owned() } else { all.join(", ") });
    }
}
