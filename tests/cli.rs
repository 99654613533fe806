//! The example `cli` as a real program: each command, each exit code, what it prints.
#![cfg(unix)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use mock_server::{Fault, Issued, MockServer, Route};
use serde_json::{Value, json};
use support::programs;
use tempfile::TempDir;

/// A machine with a user, who has the program and a server.
struct Machine {
    server: MockServer,
    directory: TempDir,
}

impl Machine {
    fn new() -> Self {
        Self::with(MockServer::start())
    }

    fn with(server: MockServer) -> Self {
        Self { server, directory: tempfile::tempdir().unwrap() }
    }

    fn logged_in() -> (Self, Issued) {
        let machine = Self::new();
        let issued = machine.log_in(&[]);
        (machine, issued)
    }

    fn log_in(&self, more: &[&str]) -> Issued {
        let issued = self.server.log_in("alice");
        let done = self.first_login(&issued.json(), more);
        assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{done:?}");
        issued
    }

    fn first_login(&self, tokens: &str, more: &[&str]) -> Done {
        let revoke = self.server.revocation_url();
        let more = [&["--revocation-endpoint", &revoke], more].concat();
        self.login_at(&self.server.token_url(), tokens, &more)
    }

    /// As `log_in`, with another token endpoint.
    fn log_in_at(&self, token_endpoint: &str) {
        let tokens = self.server.log_in("alice").json();
        assert_eq!(self.login_at(token_endpoint, &tokens, &[]).code, 0);
    }

    fn login_at(&self, token_endpoint: &str, tokens: &str, more: &[&str]) -> Done {
        let (origin, store) = (self.server.origin(), self.store());
        let mut args = vec!["login", "--tokens-stdin", "--token-endpoint", token_endpoint];
        args.extend(["--client-id", "cli", "--origin", &origin, "--store", &store]);
        args.extend(more);
        self.run_with(&args, tokens.as_bytes(), &[])
    }

    fn store(&self) -> String {
        format!("file:{}", self.directory.path().join("tokens").display())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn api(&self, path: &str) -> String {
        self.server.api_url(path)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = programs::cli(self.directory.path(), args);
        command.current_dir(self.directory.path());
        command
    }

    fn run(&self, args: &[&str]) -> Done {
        self.run_with(args, b"", &[])
    }

    fn run_with(&self, args: &[&str], stdin: &[u8], environment: &[(&str, &str)]) -> Done {
        let mut command = self.command(args);
        let mut child =
            command.envs(environment.iter().copied()).stdin(Stdio::piped()).spawn().unwrap();
        // A program that has no use for it may have ended before.
        let _ = child.stdin.take().unwrap().write_all(stdin);
        child.wait_with_output().unwrap().into()
    }
}

/// What a program left behind.
#[derive(Debug)]
struct Done {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Done {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    fn first_line(&self) -> &str {
        self.stderr.lines().next().unwrap_or_default()
    }
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("not killed"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// What `call --json` prints, without the time it took.
fn counts(done: &Done) -> Value {
    let mut counts = done.json();
    let wall = counts.as_object_mut().unwrap().remove("wall_ms");
    assert!(wall.unwrap().is_u64());
    counts
}

#[test]
fn after_a_login_calls_carry_the_token_and_the_body_goes_to_stdout() {
    let (machine, _) = Machine::logged_in();
    let done = machine.run(&["call", &machine.api("hello"), "--header", "X-A: b"]);
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    let echo = done.json();
    assert_eq!(echo["user"], "alice");
    assert_eq!(echo["method"], "GET");
    assert_eq!(echo["headers"]["x-a"], "b");
}

#[test]
fn data_is_sent_byte_for_byte_as_text_file_and_stdin() {
    let (machine, _) = Machine::logged_in();
    let bytes: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    fs::write(machine.path("body"), &bytes).unwrap();
    let url = machine.api("things");
    for (data, stdin, expected) in [
        ("grüße", &[][..], "grüße".as_bytes()),
        ("@body", &[], &bytes),
        ("-", &bytes, &bytes),
        ("", &[], &[]),
    ] {
        machine.server.reset_counters();
        let before = machine.server.requests(Route::Api).len();
        machine.server.expire_access_tokens();
        let done = machine.run_with(&["call", &url, "--data", data], stdin, &[]);
        assert_eq!(done.code, 0, "{done:?}");
        let sent = machine.server.requests(Route::Api).split_off(before);
        let seen: Vec<_> = sent.iter().map(|r| (r.method.as_str(), &r.body[..])).collect();
        assert_eq!(seen, [("POST", expected), ("POST", expected)], "{data}");
    }
    let done = machine.run(&["call", &url, "--method", "PUT", "--data", "x"]);
    assert_eq!(done.json()["method"], "PUT");
}

#[test]
fn a_hundred_calls_on_a_stale_token_make_one_refresh() {
    let (machine, _) = Machine::logged_in();
    machine.server.expire_access_tokens();
    machine.server.barrier(Route::Api, 100);
    let many = ["--count", "100", "--concurrency", "100", "--json"];
    let done = machine.run(&[&["call", &machine.api("things")], &many[..]].concat());
    assert_eq!(done.code, 0, "{done:?}");
    let expected =
        json!({ "requests": 100, "status": { "200": 100 }, "errors": {}, "refreshes": 1 });
    assert_eq!(counts(&done), expected);
    let seen = machine.server.counters();
    assert_eq!((seen.refreshes, seen.reuses, seen.api_ok), (1, 0, 100));
}

#[test]
fn no_more_calls_are_under_way_than_may_be() {
    let (machine, _) = Machine::logged_in();
    let held = machine.server.hold(Route::Api);
    let url = machine.api("things");
    let child = machine.command(&["call", &url, "--count", "7", "--concurrency", "3"]).spawn();
    held.arrived_blocking(3);
    let seen = held.count();
    held.release();
    let done = Done::from(child.unwrap().wait_with_output().unwrap());
    assert_eq!((done.code, done.stdout.as_str(), seen), (0, "", 3));
    assert!(done.stderr.starts_with("7 requests in "), "{done:?}");
    assert!(done.stderr.ends_with(" ms: 7 x 200; errors: none; refreshes: 0\n"), "{done:?}");
}

#[test]
fn an_answer_of_400_or_above_is_told_with_its_body_and_exit_code_1() {
    let (machine, _) = Machine::logged_in();
    let done = machine.run(&["call", &machine.api("status/404")]);
    assert_eq!((done.code, done.stderr.as_str()), (1, "cli: 404 Not Found\n"));
    let done = machine.run(&["call", &machine.api("status/503"), "--count", "3", "--json"]);
    assert_eq!(done.code, 1);
    let expected = json!({ "requests": 3, "status": { "503": 3 }, "errors": {}, "refreshes": 0 });
    assert_eq!(counts(&done), expected);
}

#[test]
fn a_url_of_another_origin_is_refused_and_nothing_is_sent() {
    let (machine, _) = Machine::logged_in();
    let other = MockServer::start();
    let done = machine.run(&["call", &other.api_url("hello")]);
    let (there, here) = (other.origin(), machine.server.origin());
    assert_eq!(done.code, 2);
    assert_eq!(done.first_line(), format!("cli: the token may not go to {there}, only to {here}"));
    assert_eq!(other.counters().api_requests, 0);
}

#[test]
fn without_a_profile_the_way_to_log_in_is_told() {
    let machine = Machine::new();
    for command in [&["status"][..], &["token"], &["logout"], &["call", "http://127.0.0.1/"]] {
        let done = machine.run(command);
        assert_eq!((done.code, done.stdout.as_str()), (3, ""));
        assert_eq!(done.first_line(), "cli: there is no profile \"default\"");
        assert!(done.stderr.contains("cli login --profile default --browser"), "{done:?}");
    }
    let done = machine.run(&["status", "--json", "--profile", "work"]);
    let error = &done.json()["error"];
    assert_eq!((&error["kind"], &error["exit"]), (&json!("login_required"), &json!(3)));
}

#[test]
fn a_session_that_the_server_ended_needs_a_login_and_a_second_login_needs_no_options() {
    let (machine, issued) = Machine::logged_in();
    machine.server.revoke_family(issued.family);
    let url = machine.api("hello");
    let done = machine.run(&["call", &url, "--json"]);
    assert_eq!(done.code, 3);
    let errors = json!({ "logged_out": 1 });
    let expected = json!({ "requests": 1, "status": {}, "errors": errors, "refreshes": 0 });
    assert_eq!(counts(&done), expected);
    assert!(done.stderr.contains("log in again: cli login --profile default --tokens-stdin"));

    let again = machine.server.log_in("bob").json();
    let done = machine.run_with(&["login", "--tokens-stdin"], again.as_bytes(), &[]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(machine.run(&["call", &url]).json()["user"], "bob");
}

#[test]
fn a_server_that_is_down_is_exit_code_4_and_other_programs_do_not_ask_it_either() {
    let (machine, _) = Machine::logged_in();
    machine.server.expire_access_tokens();
    let busy = Fault::status(503).header("retry-after", "7");
    machine.server.on_next(Route::Token, 1, busy);
    let url = machine.api("hello");
    let done = machine.run(&["call", &url, "--json"]);
    assert_eq!(done.code, 4, "{done:?}");
    let errors = json!({ "transient": 1 });
    let expected = json!({ "requests": 1, "status": {}, "errors": errors, "refreshes": 0 });
    assert_eq!(counts(&done), expected);
    assert!(done.stderr.ends_with("     try again in 7 s\n"), "{done:?}");
    let done = machine.run(&["call", &url]);
    assert_eq!(done.code, 4, "{done:?}");
    assert!(done.stderr.contains("a refresh by cli (process "), "{done:?}");
    assert_eq!(machine.server.counters().token_requests, 1);
    // What was said of the tokens of one login says nothing of another.
    let again = machine.server.log_in("alice").json();
    let done = machine.run_with(&["login", "--tokens-stdin"], again.as_bytes(), &[]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(machine.run(&["call", &url]).code, 0);

    machine.server.on_next(Route::Api, 1, Fault::DropAfter);
    let done = machine.run(&["call", &url, "--method", "POST", "--json"]);
    assert_eq!((done.code, &counts(&done)["errors"]), (4, &json!({ "network": 1 })));
}

#[test]
fn a_401_that_no_token_cures_needs_a_login() {
    let machine = Machine::new();
    let issued = machine.server.log_in("alice");
    let tokens = json!({ "access_token": issued.access_token }).to_string();
    assert_eq!(machine.first_login(&tokens, &[]).code, 0);
    machine.server.expire_access_tokens();
    let done = machine.run(&["call", &machine.api("hello")]);
    assert_eq!(done.code, 3);
    let line = "cli: 401 Unauthorized: the access token is refused, and can't be refreshed";
    assert_eq!(done.first_line(), line);
}

#[test]
fn token_prints_the_current_access_token_and_nothing_else() {
    let (machine, issued) = Machine::logged_in();
    let done = machine.run(&["token"]);
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    assert_eq!(done.stdout, format!("{}\n", issued.access_token));
    let json = machine.run(&["token", "--json"]).json();
    assert_eq!(json["access_token"], issued.access_token);
    assert!(json["expires_at"].is_u64());
}

#[test]
fn status_tells_how_the_login_stands() {
    let (machine, _) = Machine::logged_in();
    machine.server.expire_access_tokens();
    assert_eq!(machine.run(&["call", &machine.api("hello")]).code, 0);
    let done = machine.run(&["status", "--json"]);
    assert_eq!(done.code, 0);
    let mut status = done.json();
    for moment in ["received_at", "expires_at"] {
        assert!(status.as_object_mut().unwrap().remove(moment).unwrap().is_u64());
    }
    let by = status.as_object_mut().unwrap().remove("received_by").unwrap();
    assert!(by.as_str().unwrap().starts_with("cli (process "), "{by}");
    let file = machine.path("tokens/default.tokens.json");
    let expected = json!({
        "logged_in": true,
        "source": "profile",
        "profile": "default",
        "account": "default",
        "store": format!("the file {}", file.display()),
        "token_endpoint": machine.server.token_url(),
        "client_id": "cli",
        "origins": [machine.server.origin()],
        "refreshes": 1,
            "has_refresh_token": true,
        "lock": machine.path("tokens/default.tokens.json.lock"),
        "unanswered_since": null,
        "journal_waiting": false,
        "failed_at": null,
        "issuer": null,
        "cooldown_ms": null,
    });
    assert_eq!(status, expected);
    assert!(machine.run(&["status"]).stdout.starts_with("logged in as \"default\"\n"));
}

#[test]
fn logout_forgets_and_revokes_and_the_profile_stays() {
    let (machine, issued) = Machine::logged_in();
    let done = machine.run(&["logout", "--json"]);
    let expected = json!({ "profile": "default", "was_logged_in": true, "revocation": "revoked" });
    assert_eq!((done.code, done.json()), (0, expected));
    assert!(!machine.server.family_alive(issued.family));
    assert!(!machine.path("tokens/default.tokens.json").exists());

    let done = machine.run(&["logout"]);
    assert_eq!((done.code, done.stdout.as_str()), (0, "not logged in\n"));
    let done = machine.run(&["status", "--json"]);
    assert_eq!((done.code, &done.json()["logged_in"]), (3, &json!(false)));
    let tokens = machine.server.log_in("alice").json();
    let done = machine.run_with(&["login", "--tokens-stdin"], tokens.as_bytes(), &[]);
    assert_eq!(done.code, 0, "{done:?}");
}

#[test]
fn the_profile_holds_no_secret_and_is_its_owners_alone() {
    let machine = Machine::with(MockServer::builder().client("cli", Some("hush")).start().unwrap());
    let issued = machine.server.log_in("alice");
    let secret = [("CLI_SECRET", "hush")];
    let (token, origin, store) =
        (machine.server.token_url(), machine.server.origin(), machine.store());
    let mut args =
        vec!["login", "--tokens-stdin", "--token-endpoint", &token, "--client-id", "cli"];
    args.extend(["--origin", &origin, "--store", &store, "--client-secret-env", "CLI_SECRET"]);
    let login = machine.run_with(&args, issued.json().as_bytes(), &secret);
    assert_eq!(login.code, 0, "{login:?}");

    machine.server.expire_access_tokens();
    let call = ["call", &machine.api("hello")];
    let without = machine.run(&call);
    assert_eq!(without.code, 2);
    assert_eq!(without.first_line(), "cli: the environment variable CLI_SECRET is not set");
    let with = machine.run_with(&call, b"", &secret);
    assert_eq!(with.code, 0, "{with:?}");
    assert_eq!(machine.run(&["status"]).code, 0, "no server is asked");

    let file = machine.path("config/default.json");
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(&machine.path("config"))), (0o600, 0o700));
    let profile = fs::read_to_string(&file).unwrap();
    let shown = [profile, login.stdout, login.stderr, without.stderr, with.stdout, with.stderr];
    for secret in ["hush", &issued.access_token, &issued.refresh_token] {
        assert!(shown.iter().all(|text| !text.contains(secret)));
    }
}

#[test]
fn another_store_is_refused_until_the_logout() {
    let (machine, _) = Machine::logged_in();
    let other = ["login", "--tokens-stdin", "--store", "file:elsewhere"];
    let tokens = machine.server.log_in("alice").json();
    let refused = machine.run_with(&other, tokens.as_bytes(), &[]);
    assert_eq!(refused.code, 2);
    assert!(refused.first_line().contains("is still logged in, with its tokens at file:"));
    assert!(!machine.path("elsewhere").exists());

    assert_eq!(machine.run(&["logout"]).code, 0);
    let done = machine.run_with(&other, tokens.as_bytes(), &[]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(machine.path("elsewhere/default.tokens.json").exists());
}

#[test]
fn what_is_wrong_with_the_arguments_is_exit_code_2() {
    let machine = Machine::new();
    let tokens = machine.server.log_in("alice").json();
    let missing = machine.run_with(&["login", "--tokens-stdin"], tokens.as_bytes(), &[]);
    let line = "cli: the first login of profile \"default\" needs \
                --issuer URL --client-id ID --origin ORIGIN";
    assert_eq!((missing.code, missing.first_line()), (2, line));
    let url = machine.server.token_url();
    let no_way = ["login", "--token-endpoint", &url, "--client-id", "cli", "--origin", &url[..22]];
    let no_way = machine.run(&no_way);
    assert_eq!((no_way.code, no_way.first_line()), (2, "cli: it is not said how to log in"));
    for name in ["", ".a", "a/b", "a b", "..", "ä", "a.tokens"] {
        let done = machine.run(&["status", "--profile", name, "--json"]);
        assert_eq!((done.code, &done.json()["error"]["exit"]), (2, &json!(2)), "{name}");
    }
    for tokens in ["", "no tokens", "{}", r#"{"access_token":"a","token_type":"mac"}"#] {
        assert_eq!(machine.first_login(tokens, &[]).code, 2, "{tokens}");
    }
    let plain = machine.first_login(&tokens, &["--origin", "http://api.example.com"]);
    assert_eq!(plain.code, 2);
    assert!(plain.first_line().contains("must be https"), "{plain:?}");
    assert!(!machine.path("config/default.json").exists());
    let help = machine.run(&["--help"]);
    assert_eq!(help.code, 0);
    assert!(help.stdout.contains("  3  a login is needed\n"));
}

#[test]
fn a_damaged_record_needs_a_login_which_replaces_it() {
    let (machine, _) = Machine::logged_in();
    fs::write(machine.path("tokens/default.tokens.json"), "{").unwrap();
    let done = machine.run(&["call", &machine.api("hello"), "--json"]);
    assert_eq!((done.code, &counts(&done)["errors"]), (3, &json!({ "store": 1 })));
    machine.log_in(&[]);
    assert_eq!(machine.run(&["call", &machine.api("hello")]).code, 0);
}

#[test]
fn profiles_are_kept_apart() {
    let (machine, issued) = Machine::logged_in();
    let work = machine.log_in(&["--profile", "me@work.example"]);
    let token = |args: &[&str]| machine.run(args).stdout;
    assert_eq!(token(&["token"]), format!("{}\n", issued.access_token));
    let other = token(&["token", "--profile", "me@work.example"]);
    assert_eq!(other, format!("{}\n", work.access_token));
}

#[test]
fn a_token_in_the_environment_is_used_in_place_of_the_login() {
    let machine = Machine::new();
    let issued = machine.server.log_in("bob");
    let token = [("REAUTH_TOKEN", issued.access_token.as_str())];
    let call = ["call", &machine.api("hello")];
    // No profile is needed.
    assert_eq!(machine.run_with(&call, b"", &token).json()["user"], "bob");
    let printed = machine.run_with(&["token", "--json"], b"", &token);
    let expected = json!({ "access_token": issued.access_token, "expires_at": null });
    assert_eq!(printed.json(), expected);
    let status = machine.run_with(&["status"], b"", &token);
    assert_eq!(status.stdout, "the token comes from REAUTH_TOKEN\n");

    machine.log_in(&[]);
    assert_eq!(machine.run_with(&call, b"", &token).json()["user"], "bob");
    assert_eq!(machine.run_with(&call, b"", &[("REAUTH_TOKEN", "")]).json()["user"], "alice");
    // The profile's origins count.
    let elsewhere = machine.run_with(&["call", "https://example.com/"], b"", &token);
    assert_eq!(elsewhere.code, 2);

    machine.server.expire_access_tokens();
    let refused = machine.run_with(&call, b"", &token);
    assert_eq!(refused.code, 3);
    assert!(refused.stderr.contains("the token comes from REAUTH_TOKEN"), "{refused:?}");
    assert!(!refused.stderr.contains(&issued.access_token));
    assert_eq!(machine.server.counters().token_requests, 0);
    let logout = machine.run_with(&["logout"], b"", &token);
    assert_eq!(logout.code, 0);
    assert!(logout.first_line().starts_with("cli: REAUTH_TOKEN is set"), "{logout:?}");
}

#[test]
fn after_a_sigint_in_the_middle_of_a_refresh_the_next_call_succeeds_with_zero_reuse() {
    let (machine, _) = Machine::logged_in();
    machine.server.expire_access_tokens();
    let url = machine.api("hello");
    let held = machine.server.hold_answers(Route::Token);
    let mut child = machine.command(&["call", &url]).spawn().unwrap();
    held.arrived_blocking(1);
    programs::signal(&child, "-INT");
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert_eq!(line, "cli: interrupted\n");
    held.release();
    assert_eq!(child.wait().unwrap().code(), Some(130));

    assert_eq!(machine.run(&["call", &url]).code, 0);
    let seen = machine.server.counters();
    assert_eq!((seen.refreshes, seen.reuses, seen.token_requests), (1, 0, 1));
}

#[test]
fn a_request_that_takes_too_long_is_exit_code_4() {
    let (machine, _) = Machine::logged_in();
    let url = machine.api("hello");
    let held = machine.server.hold(Route::Api);
    let done = machine.run(&["call", &url, "--timeout", "0.2", "--json"]);
    held.release();
    assert_eq!((done.code, &counts(&done)["errors"]), (4, &json!({ "timeout": 1 })));
}

#[test]
fn token_requests_take_the_proxy_of_the_system() {
    let machine = Machine::new();
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let asked = std::thread::spawn(move || {
        let (stream, _) = proxy.accept().unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line
    });
    machine.log_in_at("https://id.example.invalid/token");

    machine.server.expire_access_tokens();
    let environment = [("HTTPS_PROXY", address.as_str()), ("NO_PROXY", "127.0.0.1")];
    let call = machine.run_with(&["call", &machine.api("hello")], b"", &environment);
    assert_eq!(call.code, 4, "{call:?}");
    assert_eq!(asked.join().unwrap().trim_end(), "CONNECT id.example.invalid:443 HTTP/1.1");
}

#[test]
fn a_token_endpoint_on_this_machine_is_asked_without_the_proxy_of_the_system() {
    let machine = Machine::new();
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    machine.log_in_at(&machine.server.token_url().replace("127.0.0.1", "localhost"));

    machine.server.expire_access_tokens();
    let environment = [("HTTP_PROXY", address.as_str()), ("NO_PROXY", "127.0.0.1")];
    let call = machine.run_with(&["call", &machine.api("hello")], b"", &environment);
    assert_eq!(call.code, 0, "{call:?}");
    assert_eq!(machine.server.counters().refreshes, 1);
    proxy.set_nonblocking(true).unwrap();
    assert_eq!(proxy.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}
