//! What the crate adds to a program's dependencies, and to the time that they take to compile:
//! built from nothing, as a release, with each set of features, and beside reqwest-middleware
//! alone.
//!
//! `cargo bench --bench compile` takes about six minutes.

mod sheet;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use sheet::Sheet;

fn main() {
    let names = ["", "crates", "seconds to compile", "ratio"];
    let mut sheet = Sheet::new("dependencies, and what they take to compile", names);
    let mut least = None;
    for (name, package, features) in SETS {
        let of = ["--package", package, "--no-default-features", "--features", features];
        // reqwest-middleware's own features are those that it has here.
        let of = if features == NONE { &of[..2] } else { &of[..] };
        let (crates, time) = (crates(of), compile(of).as_secs_f64());
        let ratio = time / *least.get_or_insert(time);
        sheet.row([
            name.to_owned(),
            crates.to_string(),
            format!("{time:.0}"),
            format!("{ratio:.2}"),
        ]);
    }
    sheet.print();
}

fn compile(of: &[&str]) -> Duration {
    let directory = tempfile::tempdir().expect("a directory");
    let begun = Instant::now();
    let status = cargo(&["build", "--quiet", "--locked", "--release", "--lib"], of)
        .arg("--target-dir")
        .arg(directory.path())
        .status();
    assert!(status.expect("cargo").success());
    begun.elapsed()
}

/// It is one of them.
fn crates(of: &[&str]) -> usize {
    let tree = ["tree", "--locked", "--edges", "normal", "--no-dedupe", "--prefix", "none"];
    let output = cargo(&tree, of).output().expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).expect("text");
    lines.lines().filter(|line| !line.is_empty()).collect::<BTreeSet<_>>().len()
}

fn cargo(what: &[&str], of: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.args(what).args(of).current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

/// No features to choose.
const NONE: &str = "-";

const SETS: [(&str, &str, &str); 5] = [
    ("reqwest-middleware alone", "reqwest-middleware", NONE),
    ("this crate, no features", "reqwest-reauth", ""),
    ("keychain (the default)", "reqwest-reauth", "keychain"),
    ("login", "reqwest-reauth", "login"),
    ("both", "reqwest-reauth", "keychain,login"),
];
