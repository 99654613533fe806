//! What the API answers from now on. An answer to what was asked before tells nothing.

use std::collections::HashSet;

use super::said::Said;

/// Whose requests that begin from now on are answered.
pub struct Answers {
    user: String,
    begun: HashSet<String>,
    answered: HashSet<String>,
}

impl Answers {
    pub fn to(user: String) -> Self {
        Self { user, begun: HashSet::new(), answered: HashSet::new() }
    }

    pub fn got(&mut self, by: &str, said: &Said) -> bool {
        if let Said::Begins(_) = said {
            self.begun.insert(by.to_owned());
        }
        let is_answer = matches!(said, Said::Ok(_, user) if *user == self.user);
        let got = is_answer && self.begun.contains(by);
        if got {
            self.answered.insert(by.to_owned());
        }
        got
    }

    pub fn have_come(&self) -> bool {
        !self.answered.is_empty()
    }

    pub fn have_come_to(&self, name: &str) -> bool {
        self.answered.contains(name)
    }
}
