//! Examples as running processes.

use std::env::consts::EXE_EXTENSION;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// The example of that name, built by cargo with the same target directory and profile as this
/// test, so that there is nothing to do where it is there already.
pub fn build(example: &str) -> PathBuf {
    // …/debug/deps/processes-… → …/debug/examples/ctrl_c
    let test = std::env::current_exe().unwrap();
    let directory = test.ancestors().nth(2).unwrap();
    let program = directory.join("examples").join(example).with_extension(EXE_EXTENSION);
    // Under Wine there is no cargo: tests/wine/run has built it.
    if cfg!(windows) && env!("CARGO").starts_with('/') {
        assert!(program.exists(), "tests/wine/run builds the example {example}");
        return program;
    }
    let profile = match directory.file_name().unwrap().to_str().unwrap() {
        "debug" => "dev",
        other => other,
    };
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--example", example, "--profile", profile])
        .arg("--target-dir")
        .arg(directory.parent().unwrap())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(status.unwrap().success(), "the example {example} could not be built");
    program
}

/// The example `cli`, with its settings and its state in `directory`, and nothing of the
/// developer's.
pub fn cli(directory: &Path, args: &[&str]) -> Command {
    static CLI: OnceLock<PathBuf> = OnceLock::new();
    let mut command = Command::new(CLI.get_or_init(|| build("cli")));
    command
        .args(args)
        .args(["--config-dir".as_ref(), directory.join("config").as_os_str()])
        .args(["--state-dir".as_ref(), directory.join("state").as_os_str()])
        .env_remove("REAUTH_TOKEN")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Sends a signal, such as `-INT`.
pub fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([name, &child.id().to_string()]).status();
    assert!(status.unwrap().success());
}
