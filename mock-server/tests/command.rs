//! The real command, as a user starts it.
#![cfg(feature = "cli")]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use mock_server::MockServer;
use serde_json::Value;

/// Ends the process whatever the test does.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(args: &[&str]) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mock-server"));
    command.args(["--addr", "127.0.0.1:0"]).args(args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Running(command.spawn().unwrap())
}

#[tokio::test]
async fn the_command_starts_and_answers() {
    let mut running = start(&["--user", "alice", "--print-tokens", "--access-ttl", "90s"]);
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    let first = next();
    let origin = first.split_whitespace().nth(2).unwrap().to_owned();
    assert!(origin.starts_with("http://127.0.0.1:"), "{first}");
    assert_eq!(next(), "");
    assert!(next().starts_with(&format!("issuer:   {origin} ")));
    let printed = loop {
        let line = next();
        if line.starts_with('{') {
            break serde_json::from_str::<Value>(&line).unwrap();
        }
    };
    assert_eq!(printed["expires_in"], 90);

    let token = printed["access_token"].as_str().unwrap();
    let url = format!("{origin}/api/things");
    let call = reqwest::Client::new().get(url).bearer_auth(token);
    let (status, body) = support::read(call.send().await.unwrap()).await;
    assert_eq!((status, &body["user"]), (200, &Value::from("alice")));
    let index = reqwest::get(format!("{origin}/")).await.unwrap();
    assert!(index.text().await.unwrap().contains("POST /token"));

    running.0.kill().unwrap();
    let mut log = String::new();
    let mut stderr = running.0.stderr.take().unwrap();
    stderr.read_to_string(&mut log).unwrap();
    assert!(log.contains("GET /api/things 200 \"alice\", family 1"), "{log}");
    assert!(!log.contains(&token[3..]), "{log}");
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_the_command_well() {
    let mut running = start(&[]);
    let mut stdout = BufReader::new(running.0.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    let id = running.0.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    assert_eq!(running.0.wait().unwrap().code(), Some(0));
}

#[test]
fn a_port_in_use_is_told_in_one_line() {
    let server = MockServer::start();
    let addr = server.addr().to_string();
    let command =
        Command::new(env!("CARGO_BIN_EXE_mock-server")).args(["--addr", &addr]).output().unwrap();
    assert_eq!(command.status.code(), Some(1));
    let told = String::from_utf8(command.stderr).unwrap();
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.contains(&addr) && told.contains("in use"), "{told}");
}
