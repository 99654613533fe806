//! The example `cli` as its user logs in: in the browser, on another device, as somebody else.

#![cfg(all(feature = "keychain", unix))]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::Child;

use mock_server::{Metadata, MockServer, Route};
use reqwest::{Client, Url};
use serde_json::{Value, json};
use support::{programs, soon};
use tempfile::TempDir;

struct Machine {
    server: MockServer,
    directory: TempDir,
}

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
}

impl Machine {
    fn new() -> Self {
        Self::with(MockServer::start())
    }

    fn with(server: MockServer) -> Self {
        Self { server, directory: tempfile::tempdir().unwrap() }
    }

    fn start(&self, args: &[&str]) -> Child {
        // A browser that opens nothing.
        programs::cli(self.directory.path(), args).env("BROWSER", "true").spawn().unwrap()
    }

    fn run(&self, args: &[&str]) -> Done {
        end(self.start(args), String::new())
    }

    /// The arguments of a first login.
    fn login<'a>(&'a self, more: &[&'a str]) -> Vec<String> {
        let (origin, directory) = (self.server.origin(), self.directory.path().display());
        let store = format!("file:{directory}/tokens");
        let mut args = vec!["login", "--issuer", &origin, "--origin", &origin];
        args.extend(["--client-id", "demo", "--store", &store]);
        args.extend(more);
        args.into_iter().map(str::to_owned).collect()
    }

    /// Begins one, and reads its stderr up to the line that `is_it`.
    fn begin(&self, args: &[String], is_it: impl Fn(&str) -> bool) -> (Child, String) {
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let mut child = self.start(&args);
        // Byte by byte, so that nothing of what follows is lost.
        let mut stderr = BufReader::with_capacity(1, child.stderr.take().unwrap());
        let mut line = String::new();
        while !is_it(&line) {
            line.clear();
            assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "it ends too soon");
        }
        child.stderr = Some(stderr.into_inner());
        (child, line.trim().to_owned())
    }

    fn log_in_by_device(&self, more: &[&str]) -> Done {
        let args = self.login(&[&["--device"], more].concat());
        let (child, line) = self.begin(&args, |line| line.contains("enter the code"));
        let (_, code) = line.rsplit_once(' ').unwrap();
        assert!(self.server.approve_device(code, "alice"));
        end(child, String::new())
    }

    fn call(&self, more: &[&str]) -> Done {
        let url = self.server.api_url("things");
        self.run(&[&["call", &*url], more].concat())
    }
}

fn end(mut child: Child, mut stderr: String) -> Done {
    let mut stdout = String::new();
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    Done { code: child.wait().unwrap().code().expect("not killed"), stdout, stderr }
}

/// The person at the login page: what the program shows in the end.
async fn decide(url: &str, decision: &str) -> String {
    let url: Url = url.parse().unwrap();
    let mut form: Vec<_> = url.query_pairs().into_owned().collect();
    form.push(("username".to_owned(), "alice".to_owned()));
    form.push(("decision".to_owned(), decision.to_owned()));
    let mut action = url;
    action.set_query(None);
    let answer = soon(Client::new().post(action).form(&form).send()).await.unwrap();
    answer.text().await.unwrap()
}

#[tokio::test]
async fn a_login_in_the_browser_is_kept_and_made_again_without_a_word() {
    let machine = Machine::new();
    let more = ["--scope", "offline_access", "--param", "prompt=consent", "--param", "a=b=c"];
    let args = machine.login(&[&["--browser"], &more[..]].concat());
    for args in [args, vec!["login".to_owned()]] {
        let (child, url) = machine.begin(&args, |line| line.starts_with("http://"));
        for said in ["scope=offline_access", "prompt=consent", "a=b%3Dc"] {
            assert!(url.contains(said), "{said}: {url}");
        }
        assert!(decide(&url, "allow").await.contains("You are logged in"));
        let done = end(child, String::new());
        assert_eq!(done.code, 0, "{done:?}");
        assert!(done.stdout.starts_with("logged in; "), "{done:?}");
        assert_eq!(machine.call(&[]).code, 0);
    }
    assert_eq!(machine.server.counters().logins, 2);
    // The server is asked where it is at a login, and at no call.
    machine.server.expire_access_tokens();
    assert_eq!(machine.call(&[]).code, 0);
    assert_eq!(machine.server.counters().refreshes, 1);
    assert_eq!(machine.server.requests(Route::Metadata).len(), 2);
    let done = machine.run(&["logout"]);
    assert!(done.stdout.contains("the server has revoked the refresh token"), "{done:?}");
}

#[tokio::test]
async fn a_login_that_is_refused_keeps_no_profile() {
    let machine = Machine::new();
    let args = machine.login(&["--browser", "--json"]);
    let (child, url) = machine.begin(&args, |line| line.starts_with("http://"));
    assert!(decide(&url, "deny").await.contains("You are not logged in"));
    let done = end(child, String::new());
    assert_eq!((done.code, &done.json()["error"]["kind"]), (3, &json!("login_required")));
    assert_eq!(machine.run(&["status"]).code, 3);
    assert!(!machine.directory.path().join("config/default.json").exists());
}

#[tokio::test]
async fn ctrl_c_in_the_middle_of_a_login_leaves_nothing_behind() {
    let machine = Machine::new();
    let args = machine.login(&["--browser"]);
    let (mut child, _) = machine.begin(&args, |line| line.starts_with("http://"));
    programs::signal(&child, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let config = machine.directory.path().join("config");
    let left: Vec<_> = fs::read_dir(&config).map_or_else(|_| Vec::new(), |it| it.collect());
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_login_on_another_device_needs_no_browser() {
    let machine = Machine::new();
    let done = machine.log_in_by_device(&[]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(machine.call(&[]).code, 0);
    assert_eq!(machine.server.counters().codes, 0);
}

#[test]
fn a_login_that_will_not_last_says_so() {
    let machine = Machine::new();
    let file = machine.directory.path().join("tokens.json");
    let access_token = machine.server.log_in("alice").access_token;
    fs::write(&file, json!({ "access_token": access_token }).to_string()).unwrap();
    let args = machine.login(&["--tokens-file", file.to_str().unwrap()]);
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let done = machine.run(&args);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.stderr.starts_with("there is no refresh token: "), "{done:?}");
    assert_eq!(machine.call(&[]).code, 0);
}

#[test]
fn tokens_in_a_file_of_another_program_are_a_login() {
    let machine = Machine::new();
    let file = machine.directory.path().join("tokens.json");
    fs::write(&file, machine.server.log_in("alice").json()).unwrap();
    let args = machine.login(&["--tokens-file", file.to_str().unwrap()]);
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    // As at every start of a script.
    for refreshes in 1..4 {
        assert_eq!(machine.run(&args).code, 0);
        machine.server.expire_access_tokens();
        assert_eq!(machine.call(&[]).code, 0);
        assert_eq!(machine.server.counters().refreshes, refreshes);
    }
    assert_eq!(machine.server.counters().reuses, 0);
    assert_eq!(machine.run(&["logout"]).code, 0);
    let done = machine.run(&args);
    assert_eq!(done.code, 3, "{done:?}");
    assert!(done.stderr.contains("were taken over before"), "{done:?}");
}

#[test]
fn a_logout_is_one_on_this_machine_though_the_server_is_down() {
    let machine = Machine::new();
    assert_eq!(machine.log_in_by_device(&[]).code, 0);
    let Machine { server, directory } = machine;
    drop(server);
    let machine = Machine { server: MockServer::start(), directory };
    let done = machine.run(&["logout", "--json"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(done.json()["revocation"], "failed");
    assert_eq!(machine.run(&["status"]).code, 3);
}

#[test]
fn several_accounts_are_listed_chosen_and_logged_out_of_together() {
    let machine = Machine::new();
    for name in ["work", "home"] {
        assert_eq!(machine.log_in_by_device(&["--profile", name]).code, 0);
    }
    let listed = machine.run(&["accounts"]);
    assert_eq!(listed.stdout, "  home  logged in\n  work  logged in\n");
    assert_eq!(machine.call(&[]).code, 3, "there is no profile default");
    let chosen = machine.run(&["accounts", "use", "work"]);
    assert_eq!(chosen.stdout, "  home  logged in\n* work  logged in\n");
    assert_eq!(machine.call(&[]).code, 0);
    assert_eq!(machine.call(&["--profile", "home"]).code, 0);
    let unknown = machine.run(&["accounts", "use", "nobody"]);
    assert_eq!(unknown.code, 2, "{unknown:?}");

    let one = machine.run(&["logout", "--profile", "home"]);
    assert_eq!(one.code, 0);
    assert_eq!(machine.call(&[]).code, 0, "the other one goes on");
    let all = machine.run(&["logout", "--all"]);
    assert_eq!((all.code, all.stderr.as_str()), (0, "home:\nwork:\n"), "{all:?}");
    assert_eq!(machine.call(&[]).code, 3);
    let listed = machine.run(&["accounts", "--json"]).json();
    let account = |name, chosen| json!({ "profile": name, "chosen": chosen, "logged_in": false, "problem": null });
    assert_eq!(listed, json!({ "accounts": [account("home", false), account("work", true)] }));
    assert_eq!(machine.server.counters().revocations, 2);
}

#[test]
fn what_all_logouts_came_to_is_one_object_and_the_most_urgent_exit_code() {
    let machine = Machine::new();
    let none = machine.run(&["logout", "--all", "--json"]);
    assert_eq!((none.code, none.json()), (0, json!({ "logouts": [] })));
    for name in ["home", "work"] {
        assert_eq!(machine.log_in_by_device(&["--profile", name]).code, 0);
    }
    let config = machine.directory.path().join("config");
    fs::write(config.join("broken.json"), "{").unwrap();
    let done = machine.run(&["logout", "--all", "--json"]);
    assert_eq!(done.code, 2, "{done:?}");
    let all = done.json()["logouts"].as_array().unwrap().clone();
    assert!(all[0]["problem"].as_str().unwrap().contains("broken.json is no profile"), "{done:?}");
    let out =
        |name: &str| json!({ "profile": name, "was_logged_in": true, "revocation": "revoked" });
    assert_eq!(all[1..], [out("home"), out("work")]);
    assert_eq!(done.stderr.matches("is no profile").count(), 1, "{done:?}");
}

#[test]
fn a_login_at_another_server_takes_no_secret_and_no_endpoint_of_the_one_before() {
    let machine = Machine::new();
    let (directory, other) = (machine.directory.path(), MockServer::start());
    let log_in = |server: &MockServer, more: &[&str]| {
        let (file, store) = (directory.join("issued.json"), directory.join("tokens"));
        fs::write(&file, server.log_in("alice").json()).unwrap();
        let (url, store) = (server.token_url(), format!("file:{}", store.display()));
        let args = ["login", "--tokens-file", file.to_str().unwrap(), "--token-endpoint", &url];
        let origin = server.origin();
        let rest = ["--client-id", "demo", "--origin", &origin, "--store", &store];
        let done = machine.run(&[&args[..], &rest, more].concat());
        assert_eq!(done.code, 0, "{done:?}");
        let profile = fs::read(directory.join("config/default.json")).unwrap();
        let profile: Value = serde_json::from_slice(&profile).unwrap();
        [profile["client_secret_env"].clone(), profile["revocation_endpoint"].clone()]
    };
    let revocation = machine.server.revocation_url();
    let more = ["--client-secret-env", "HUSH", "--revocation-endpoint", &revocation];
    let expected = [json!("HUSH"), json!(revocation)];
    assert_eq!(log_in(&machine.server, &more), expected);
    assert_eq!(log_in(&machine.server, &[]), expected, "the same server");
    assert_eq!(machine.run(&["logout"]).code, 0);
    assert_eq!(log_in(&other, &[]), [Value::Null, Value::Null]);
}

#[test]
fn a_choice_that_names_no_profile_can_be_made_again() {
    let machine = Machine::new();
    assert_eq!(machine.log_in_by_device(&["--profile", "work"]).code, 0);
    let chosen = machine.directory.path().join("config/.chosen");
    fs::write(chosen, "").unwrap();
    let done = machine.run(&["status"]);
    assert_eq!(done.code, 2, "{done:?}");
    assert!(done.stderr.contains("cli accounts use NAME chooses one"), "{done:?}");
    assert_eq!(machine.run(&["accounts", "use", "work"]).code, 0);
    assert_eq!(machine.run(&["status"]).code, 0);
}

#[test]
fn doctor_says_what_is_wrong_and_what_to_do() {
    let machine = Machine::new();
    assert_eq!(machine.log_in_by_device(&[]).code, 0);
    let found = |done: &Done| -> Vec<(String, bool)> {
        let findings = done.json()["findings"].as_array().unwrap().clone();
        let said = |finding: &Value| finding["what"].as_str().unwrap().to_owned();
        findings.iter().map(|it| (said(it), it["ok"].as_bool().unwrap())).collect()
    };
    let all = |login, server: bool| -> Vec<(String, bool)> {
        let mut all = vec![("profile", true), ("login", login), ("lock", true)];
        all.push(("server", server));
        if server {
            all.extend([("clock", true), ("token endpoint", true)]);
        }
        all.into_iter().map(|(what, ok)| (what.to_owned(), ok)).collect()
    };
    let well = machine.run(&["doctor", "--json"]);
    assert_eq!((well.code, found(&well)), (0, all(true, true)), "{well:?}");
    assert!(machine.run(&["doctor"]).stdout.contains("ok     token endpoint: "));

    assert_eq!(machine.run(&["logout"]).code, 0);
    let out = machine.run(&["doctor", "--json"]);
    assert_eq!((out.code, found(&out)), (3, all(false, true)), "{out:?}");
    let Machine { server, directory } = machine;
    drop(server);
    let machine = Machine { server: MockServer::start(), directory };
    let down = machine.run(&["doctor", "--json"]);
    assert_eq!((down.code, found(&down)), (3, all(false, false)), "{down:?}");
}

#[test]
fn doctor_tells_a_server_that_does_not_say_where_it_is() {
    let machine = Machine::with(MockServer::builder().metadata(Metadata::Neither).start().unwrap());
    let args = machine.login(&["--device"]);
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let done = machine.run(&args);
    assert_eq!(done.code, 2, "{done:?}");
    assert!(
        done.stderr.contains("/.well-known/oauth-authorization-server answered 404"),
        "{done:?}"
    );
}

#[test]
fn every_shell_gets_its_completion() {
    let machine = Machine::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let done = machine.run(&["completions", shell]);
        assert_eq!(done.code, 0);
        assert!(done.stdout.contains("tokens-stdin"), "{shell}");
    }
}
