//! The system's browser is opened with the login page, and not waited for.
#![cfg(unix)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use mock_server::MockServer;
use reqwest_reauth::{BrowserLogin, OAuth2Endpoint};

/// Started as the program, this is one; else it starts one, with a browser that is waited for, as
/// those in a terminal are.
#[test]
fn a_program_ends_though_the_browser_that_it_opened_does_not() {
    if let Ok(issuer) = env::var(ISSUER) {
        return log_in(&issuer);
    }
    let (server, directory) = (MockServer::start(), tempfile::tempdir().unwrap());
    let (browser, opened) = (directory.path().join("lynx"), directory.path().join("opened"));
    let (writer, ready) = (opened.display(), directory.path().join("ready"));
    // Read by the test, so that it is known when the browser runs.
    assert!(Command::new("mkfifo").arg(&opened).status().unwrap().success());
    let script = format!("#!/bin/sh\necho \"$1\" > '{writer}'\nexec sleep 60\n");
    fs::write(&browser, script).unwrap();
    fs::set_permissions(&browser, fs::Permissions::from_mode(0o700)).unwrap();
    let mut program = Command::new(env::current_exe().unwrap())
        .args(["--exact", "a_program_ends_though_the_browser_that_it_opened_does_not"])
        .env(ISSUER, server.issuer())
        .env(READY, &ready)
        .env("BROWSER", &browser)
        .stdout(Stdio::null())
        // The browser outlives the test, which must not keep its output open.
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let url = fs::read_to_string(&opened).unwrap();
    assert!(url.starts_with(&server.authorization_url()), "{url}");
    // From here on the program may end; the browser doesn't.
    let begun = Instant::now();
    fs::write(&ready, "").unwrap();
    assert!(program.wait().unwrap().success());
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

fn log_in(issuer: &str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ready = env::var(READY).unwrap();
    runtime.block_on(async {
        let endpoint = OAuth2Endpoint::at_issuer(issuer, "my-cli");
        let login = BrowserLogin::new(&endpoint).run(|_| {});
        let opened = async {
            while !fs::exists(&ready).unwrap() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            result = login => panic!("nobody has logged in: {result:?}"),
            () = support::soon(opened) => {}
        }
    });
    // Waits for what runs in it.
    drop(runtime);
}

const ISSUER: &str = "REAUTH_TEST_ISSUER";
const READY: &str = "REAUTH_TEST_READY";
