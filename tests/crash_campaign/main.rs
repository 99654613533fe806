//! Programs that share a login, killed, stopped and interrupted at every step of a refresh, while
//! the server and the keychain fail: who loses a session, and why.
//!
//! `tests/crash-campaign --runs 2000 --seed 7` makes 2,000 runs; `--only 12` repeats one of them.
//! Each run has a mock server, a store and 2 to 4 workers, which are processes that make requests
//! all the time. What goes wrong follows from the seed and the run's number. At its end the
//! server's history decides what was lost.

/// Where there are signals, and a Secret Service of its own for each run.
#[cfg(target_os = "linux")]
#[path = "program.rs"]
mod program;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    program::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("the crash campaign was not run: it needs Linux");
}
