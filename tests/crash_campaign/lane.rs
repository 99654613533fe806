//! Some runs, one after the other, with a keychain of their own where they need one.

use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::keychain::{self, Keychain};
use super::scene;
use super::tally::Tally;
use super::watchdog::Watchdog;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Lane {
    pub seed: u64,
    pub runs: Vec<u64>,
    pub in_keychain: bool,
    /// Whether all that happened is told, also where nothing is wrong.
    pub tells_all: bool,
}

/// What came of a run: a line of JSON.
#[derive(Serialize, Deserialize)]
pub struct Report {
    pub run: u64,
    pub tally: Tally,
    /// What is wrong, with all that happened.
    pub story: Option<String>,
}

impl Report {
    fn is_explained(&self) -> bool {
        self.tally.get("unexplained") == 0
    }
}

impl Lane {
    /// As a process of its own, since a keychain is found by the process's environment.
    pub fn command(&self, home: &tempfile::TempDir) -> Command {
        let mut command = if self.in_keychain {
            keychain::in_a_bus(home.path())
        } else {
            Command::new(std::env::current_exe().unwrap())
        };
        command.args(["lane", &serde_json::to_string(self).unwrap()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

pub fn main(lane: &str) -> ExitCode {
    let lane: Lane = serde_json::from_str(lane).unwrap();
    let watchdog = Watchdog::start(LIMIT);
    let mut keychain = Keychain::down();
    if lane.in_keychain {
        keychain.start();
    }
    for &run in &lane.runs {
        let report = play(&lane, run, &mut keychain, &watchdog);
        println!("{}", serde_json::to_string(&report).unwrap());
    }
    ExitCode::SUCCESS
}

/// Plays the run, and once more where it went wrong while the keychain's daemon aborted by itself:
/// what was tested then is nothing. The last time it has to go well, whatever the daemon does.
fn play(lane: &Lane, run: u64, keychain: &mut Keychain, watchdog: &Watchdog) -> Report {
    let mut all = 0;
    for time in 1.. {
        let before = keychain::aborts();
        let mut report = scene::play(lane, run, time, keychain, watchdog);
        let aborts = keychain::aborts() - before;
        if aborts > 0 {
            keychain.restart();
        }
        all += aborts as u64;
        if report.is_explained() || aborts == 0 || time == keychain::TIMES {
            report.tally.add("keychain aborts", all);
            return report;
        }
    }
    unreachable!("the last time returns")
}

/// More than the waits of one deed together.
const LIMIT: Duration = Duration::from_secs(150);
