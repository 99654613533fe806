//! Programs that share a login, killed, stopped and interrupted at every step of a refresh, while
//! the server and the keychain fail: who loses a session, and why.
//!
//! `tests/crash-campaign --runs 2000 --seed 7` makes 2,000 runs; `--only 12` repeats one of them.
//! Each run has a mock server, a store and 2 to 4 workers, which are processes that make requests
//! all the time. What goes wrong follows from the seed and the run's number. At its end the
//! server's history decides what was lost.
#![cfg(all(feature = "keychain", target_os = "linux"))]

mod answers;
mod campaign;
mod chance;
mod crew;
mod deeds;
mod judge;
#[path = "../support/keychain.rs"]
mod keychain;
mod lane;
mod logins;
mod plan;
#[path = "../support/programs.rs"]
#[allow(dead_code, reason = "it can also build examples")]
mod programs;
mod said;
mod scene;
mod steps;
mod story;
mod tally;
mod watchdog;
mod worker;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["worker", setting] => worker::run(setting),
        ["lane", lane] => lane::main(lane),
        _ => campaign::main(&args),
    }
}
