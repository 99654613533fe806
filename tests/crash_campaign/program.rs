//! What the program is made of.

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

pub fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["worker", setting] => worker::run(setting),
        ["lane", lane] => lane::main(lane),
        _ => campaign::main(&args),
    }
}
