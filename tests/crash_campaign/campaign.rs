//! All runs, several at once, and the table at the end.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ExitCode};
use std::time::{Duration, Instant};

use super::lane::{Lane, Report};
use super::plan;
use super::tally::Tally;
use super::watchdog::Watchdog;

struct Campaign {
    runs: u64,
    seed: u64,
    /// Repeats this run, and no other.
    only: Option<u64>,
}

pub fn main(args: &[&str]) -> ExitCode {
    match Campaign::read(args) {
        Ok(Some(campaign)) => campaign.go(),
        Ok(None) => {
            println!("test result: ok. 0 passed; 0 failed; 0 ignored");
            ExitCode::SUCCESS
        }
        Err(wrong) => {
            eprintln!("{wrong}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

impl Campaign {
    /// `None` where other tests are asked for: cargo gives its filter to each of them.
    fn read(args: &[&str]) -> Result<Option<Self>, String> {
        let mut campaign = Self { runs: RUNS, seed: 1, only: None };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut number = || {
                let number = args.next().and_then(|number| number.parse().ok());
                number.ok_or_else(|| format!("{arg} needs a number"))
            };
            match *arg {
                "--runs" => campaign.runs = number()?,
                "--seed" => campaign.seed = number()?,
                "--only" => campaign.only = Some(number()?),
                "--nocapture" | "--quiet" | "--include-ignored" | "--exact" => {}
                "--list" | "--ignored" => return Ok(None),
                threads if threads.starts_with("--test-threads") => {}
                option if option.starts_with("--") => return Err(format!("what is {option}?")),
                filter if "crash_campaign".contains(filter) => {}
                _ => return Ok(None),
            }
        }
        Ok(Some(campaign))
    }

    fn go(self) -> ExitCode {
        let started = Instant::now();
        let runs = self.only.map_or_else(|| (0..self.runs).collect(), |run| vec![run]);
        let count = runs.len() as u64;
        println!("\ncrash campaign: {count} runs, seed {}", self.seed);
        let watchdog = Watchdog::start(LIMIT);
        let homes: Vec<_> = (0..LANES).map(|_| tempfile::tempdir().unwrap()).collect();
        let lanes: Vec<_> = (homes.iter().zip(0..))
            .map(|(home, lane)| {
                // Every other run has a keychain, and so has every other lane.
                let runs: Vec<_> = runs.iter().copied().filter(|run| run % LANES == lane).collect();
                let (in_keychain, tells_all) = (lane % 2 == 1, self.only.is_some());
                (home, Lane { seed: self.seed, runs, in_keychain, tells_all })
            })
            .filter(|(_, lane)| !lane.runs.is_empty())
            .map(|(home, lane)| {
                let missing = "tests/run-all installs dbus-daemon and gnome-keyring";
                let lane = lane.command(home).spawn().unwrap_or_else(|e| panic!("{e}: {missing}"));
                let watchdog = watchdog.clone();
                std::thread::spawn(move || listen(lane, &watchdog))
            })
            .collect();
        let mut tally = Tally::default();
        for lane in lanes {
            tally.merge(lane.join().unwrap());
        }
        table(&tally, started.elapsed().as_secs());

        let mut failed = tally.get("unexplained") + tally.get("lanes that failed");
        if tally.get("runs") != count {
            println!("{} runs did not end", count - tally.get("runs"));
            failed += 1;
        }
        let least = count / RUNS_PER_KILL;
        for moment in plan::moments(true) {
            let kills = tally.get(&format!("kills at {moment}"));
            if kills < least {
                println!("only {kills} kills at {moment:?}: {least} are to be made");
                failed += 1;
            }
        }
        let (word, passed) = if failed == 0 { ("ok", 1) } else { ("FAILED", 0) };
        println!("test result: {word}. {passed} passed; {} failed; 0 ignored", 1 - passed);
        ExitCode::from(u8::from(failed > 0))
    }
}

/// What came of the runs of a lane.
fn listen(mut lane: Child, watchdog: &Watchdog) -> Tally {
    let mut tally = Tally::default();
    let mut errors = lane.stderr.take().unwrap();
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        errors.read_to_string(&mut text).map(|_| text)
    });
    for line in BufReader::new(lane.stdout.take().unwrap()).lines() {
        let report: Report = serde_json::from_str(&line.unwrap()).unwrap();
        watchdog.doing(format!("the latest run to end was {}", report.run));
        if let Some(story) = report.story {
            eprintln!("{story}");
        }
        tally.merge(report.tally);
    }
    let status = lane.wait().unwrap();
    if !status.success() {
        tally.count("lanes that failed");
    }
    if !status.success() || tally.get("unexplained") > 0 {
        // D-Bus grumbles here, and who panics says why.
        eprintln!("{status}; it said:\n{}", errors.join().unwrap().unwrap());
    }
    tally
}

fn table(tally: &Tally, seconds: u64) {
    println!("{:<18}{}", "runs", tally.get("runs"));
    println!("{:<18}{seconds}", "seconds");
    let kills: Vec<_> = (plan::moments(true).iter())
        .map(|moment| format!("{moment} {}", tally.get(&format!("kills at {moment}"))))
        .collect();
    println!("{:<18}{}", "kills at", kills.join("; "));
    for (title, prefix) in [
        ("stops at", "stops at "),
        ("SIGINTs at", "SIGINTs at "),
        ("logouts at", "logouts at "),
        ("faults", "fault: "),
        ("keychain kills at", "keychain kills at "),
        ("not come to", "not come to "),
        ("the server", "server: "),
        ("the workers", "workers: "),
        ("sessions lost", "lost: "),
    ] {
        tally.print(title, prefix);
    }
    println!("{:<18}{}", "keychain aborts", tally.get("keychain aborts"));
    println!("{:<18}{}", "unexplained", tally.get("unexplained"));
}

const USAGE: &str = "crash-campaign [--runs N] [--seed S] [--only RUN]";

/// Three minutes on two cores.
const RUNS: u64 = 200;

/// Runs at the same time, an even number: they wait more than they work.
const LANES: u64 = 8;

/// More than a lane takes to say itself that it is stuck.
const LIMIT: Duration = Duration::from_secs(300);

/// Each moment must have had a kill in so many runs: it has a dozen.
const RUNS_PER_KILL: u64 = 100;
