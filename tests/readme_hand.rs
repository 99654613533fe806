//! The README's way from nothing to a call that is logged in, command by command, with a real
//! keychain.
#![cfg(all(feature = "keychain", target_os = "linux"))]

#[path = "support/keychain.rs"]
mod keychain;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::keychain::{in_a_session, said};

/// Ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn three_commands_lead_from_nothing_to_a_call_that_is_logged_in() {
    let name = "three_commands_lead_from_nothing_to_a_call_that_is_logged_in";
    in_a_session(name, async |keychain| {
        let [serve, log_in, call] = commands();
        assert_eq!(serve, "cargo run -p mock-server");
        // At a free port, in case the default one is taken; the other two go to it there.
        let mut server = shell(&format!("exec {serve} -- --addr 127.0.0.1:0"));
        let mut server = Server(server.stdout(Stdio::piped()).spawn().unwrap());
        let mut greeting = String::new();
        BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut greeting).unwrap();
        let origin = greeting.split_whitespace().find(|word| word.starts_with("http")).unwrap();
        let state = tempfile::tempdir().unwrap();
        let run = |command: &str, has_a_person: bool| -> Output {
            assert!(command.contains("http://127.0.0.1:8011") && command.contains("cli -- "));
            let command = command.replace("http://127.0.0.1:8011", origin);
            // What is noted beside the keychain lies in the user's real home by default.
            let options = format!("cli -- --state-dir {} ", state.path().display());
            let mut command = shell(&command.replace("cli -- ", &options));
            let child = command.stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = child.env("BROWSER", "true").spawn().unwrap();
            if has_a_person {
                // Byte by byte, so that nothing of what follows is lost.
                let stderr = child.stderr.take().unwrap();
                let mut stderr = BufReader::with_capacity(1, stderr);
                let mut url = String::new();
                while !url.starts_with("http") {
                    url.clear();
                    assert_ne!(stderr.read_line(&mut url).unwrap(), 0, "no URL");
                }
                allow(url.trim());
                child.stderr = Some(stderr.into_inner());
            }
            child.wait_with_output().unwrap()
        };

        let login = run(&log_in, true);
        assert!(login.status.success(), "{}", said(&login));
        let [(account, _)] = keychain.entries("reqwest-reauth-cli").try_into().unwrap();
        assert_eq!(account, "default");
        let called = run(&call, false);
        assert!(called.status.success(), "{}", said(&called));
        let body: serde_json::Value = serde_json::from_slice(&called.stdout).unwrap();
        assert_eq!(body["user"], "alice", "{body}");
    });
}

/// The person, and the browser.
fn allow(login_page: &str) {
    let (page, query) = login_page.split_once('?').unwrap();
    let form = format!("{query}&username=alice&decision=allow");
    let curl =
        Command::new("curl").args(["--silent", "--location", "--data", &form, page]).output();
    let shown = said(&curl.unwrap());
    assert!(shown.contains("You are logged in"), "{shown}");
}

fn commands() -> [String; 3] {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let (_, rest) = readme.split_once("<!-- hand -->\n```sh\n").unwrap();
    let (block, _) = rest.split_once("```\n<!-- /hand -->").unwrap();
    let lines: Vec<_> = block.lines().map(str::to_owned).collect();
    lines.try_into().unwrap()
}

fn shell(command: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).current_dir(env!("CARGO_MANIFEST_DIR"));
    shell
}
