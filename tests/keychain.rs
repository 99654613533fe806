//! The keychain, on a real Secret Service: what is in it, and what happens when it is locked,
//! dead, hung or not there. Each test has a D-Bus session and a GNOME Keyring of its own.
#![cfg(all(feature = "keychain", target_os = "linux"))]

#[path = "support/keychain.rs"]
mod keychain;
#[path = "support/secret_service.rs"]
mod secret_service;
mod support;

use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mock_server::{MockServer, Route};
use reqwest_reauth::{KeychainStore, Record, Session, SessionBuilder, TokenStore};
use support::{
    chain, client, endpoint, found, join_all, programs, refresh_tokens_sent, soon, tokens, wait_out,
};

use crate::keychain::{in_a_session, without_a_session};
use crate::secret_service::SecretService;

/// A user's program at a mock server, whose tokens are in the keychain.
struct Program {
    server: MockServer,
    state: tempfile::TempDir,
}

impl Program {
    fn new() -> Self {
        Self { server: MockServer::start(), state: tempfile::tempdir().unwrap() }
    }

    fn builder(&self) -> SessionBuilder {
        Session::builder(SERVICE, endpoint(&self.server))
            .origin(self.server.origin())
            .state_dir(self.state.path())
    }

    /// As another start of the program.
    fn session(&self) -> Session {
        self.builder().build().unwrap()
    }

    async fn logged_in(&self) -> Session {
        let session = self.session();
        session.log_in(tokens(&self.server.log_in("alice"))).await.unwrap();
        session
    }

    async fn get(&self, session: &Session) -> Result<u16, reqwest_middleware::Error> {
        let response = soon(client(session).get(self.server.api_url("things")).send()).await?;
        Ok(response.status().as_u16())
    }
}

// What is in it.

#[test]
fn a_login_is_in_the_keychain_until_the_logout_and_nowhere_else() {
    in_a_session(
        "a_login_is_in_the_keychain_until_the_logout_and_nowhere_else",
        async |keychain| {
            let program = Program::new();
            let session = program.logged_in().await;
            let [(user, secret)] = keychain.entries(SERVICE).try_into().unwrap();
            assert_eq!(user, "default");
            assert!(String::from_utf8(secret).unwrap().starts_with(r#"{"version":1,"#));
            drop(session);

            let session = program.session();
            assert!(session.is_logged_in().await.unwrap());
            assert_eq!(program.get(&session).await.unwrap(), 200);
            program.server.expire_access_tokens();
            assert_eq!(program.get(&session).await.unwrap(), 200);
            assert_eq!(keychain.entries(SERVICE).len(), 1, "replaced in place");
            let status = session.status().await.unwrap();
            assert_eq!(
                status.store(),
                r#"the keychain (Secret Service) (entry "reauth-test", account "default")"#
            );
            // What is beside it is no secret.
            let files = std::fs::read_dir(program.state.path()).unwrap();
            let mut kinds = Vec::new();
            for file in files {
                let path = file.unwrap().path();
                kinds.push(path.extension().unwrap().to_str().unwrap().to_owned());
                let bytes = std::fs::read(path).unwrap();
                let secrets = ["at_", "rt_"].map(str::as_bytes);
                let holds = |secret: &[u8]| bytes.windows(secret.len()).any(|part| part == secret);
                assert!(!secrets.into_iter().any(holds), "{kinds:?}");
            }
            kinds.sort();
            assert_eq!(kinds, ["journal", "lock", "trace"]);

            session.log_out().await.unwrap();
            assert_eq!(keychain.entries(SERVICE), []);
            assert!(!program.session().is_logged_in().await.unwrap());
            assert!(keyring_core::get_default_store().is_none(), "not ours to set");
        },
    );
}

#[test]
fn each_account_has_an_entry_of_its_own() {
    in_a_session("each_account_has_an_entry_of_its_own", async |keychain| {
        let program = Program::new();
        let account = |name: &str| program.builder().account(name).build().unwrap();
        for name in ["work", "home"] {
            account(name).log_in(tokens(&program.server.log_in(name))).await.unwrap();
        }
        let users: Vec<_> = keychain.entries(SERVICE).into_iter().map(|(user, _)| user).collect();
        assert_eq!(users, ["home", "work"]);
        account("work").log_out().await.unwrap();
        assert!(!account("work").is_logged_in().await.unwrap());
        assert!(account("home").is_logged_in().await.unwrap());
    });
}

#[test]
fn what_another_program_stored_is_a_login() {
    in_a_session("what_another_program_stored_is_a_login", async |keychain| {
        let program = Program::new();
        keychain.put(SERVICE, "default", program.server.log_in("alice").json().as_bytes());
        let session = program.session();
        assert!(session.is_logged_in().await.unwrap());
        assert_eq!(program.get(&session).await.unwrap(), 200);
        program.server.expire_access_tokens();
        assert_eq!(program.get(&session).await.unwrap(), 200);
        // A record from now on; a restart goes on with it.
        let [(_, secret)] = keychain.entries(SERVICE).try_into().unwrap();
        assert!(secret.starts_with(br#"{"version":1,"#));
        assert_eq!(program.get(&program.session()).await.unwrap(), 200);
        let counters = program.server.counters();
        assert_eq!((counters.refreshes, counters.reuses), (1, 0));

        // From another entry, by hand: as the documentation of KeychainStore has it.
        keychain.put("old-cli", "bob", program.server.log_in("bob").json().as_bytes());
        let old = KeychainStore::new("old-cli", "bob");
        let record = old.load().unwrap().unwrap();
        let response = reqwest_reauth::TokenResponse::from_json(record.as_bytes()).unwrap();
        session.log_in(response).await.unwrap();
        old.clear().unwrap();
        assert_eq!(keychain.entries("old-cli"), []);
        assert_eq!(program.get(&session).await.unwrap(), 200);
    });
}

#[test]
fn a_record_of_a_newer_format_is_left_alone() {
    in_a_session("a_record_of_a_newer_format_is_left_alone", async |keychain| {
        let program = Program::new();
        let newer = br#"{"version":2,"all":"new"}"#;
        keychain.put(SERVICE, "default", newer);
        let session = program.session();
        let asked = session.is_logged_in().await.unwrap_err();
        let login = session.log_in(tokens(&program.server.log_in("alice"))).await.unwrap_err();
        let logout = session.log_out().await.unwrap_err();
        for error in [&asked, &login, &logout] {
            assert!(error.is_configuration() && !error.is_logged_out(), "{error:?}");
            assert!(chain(error).contains("newer version"), "{}", chain(error));
        }
        assert!(login.tokens().is_some(), "given back");
        assert_eq!(keychain.entries(SERVICE), [("default".to_owned(), newer.to_vec())]);
    });
}

#[test]
fn a_damaged_record_is_an_error_and_kept_aside_by_the_next_login() {
    in_a_session(
        "a_damaged_record_is_an_error_and_kept_aside_by_the_next_login",
        async |keychain| {
            let program = Program::new();
            keychain.put(SERVICE, "default", b"{\"version\":1,\"acc");
            let session = program.session();
            let error = session.is_logged_in().await.unwrap_err();
            assert!(error.is_store() && !error.is_transient() && !error.is_logged_out());
            assert!(error.is_login_required());
            assert!(chain(&error).contains("damaged: log in again"), "{}", chain(&error));
            session.log_in(tokens(&program.server.log_in("alice"))).await.unwrap();
            let [_, (aside, bytes)] = keychain.entries(SERVICE).try_into().unwrap();
            assert_eq!(aside, "default (damaged)");
            assert_eq!(bytes, b"{\"version\":1,\"acc");
            assert_eq!(program.get(&session).await.unwrap(), 200);
            session.log_out().await.unwrap();
            assert_eq!(keychain.entries(SERVICE), [], "no copy of a token outlives the logout");
        },
    );
}

#[test]
fn an_entry_that_was_lost_is_no_logout() {
    in_a_session("an_entry_that_was_lost_is_no_logout", async |keychain| {
        let program = Program::new();
        let running = program.logged_in().await;
        keychain.take(SERVICE, "default");
        let error = program.session().is_logged_in().await.unwrap_err();
        assert!(error.is_store() && error.is_transient() && !error.is_logged_out(), "{error:?}");
        assert!(error.is_login_required());
        assert!(chain(&error).contains("though nobody has logged out"), "{}", chain(&error));
        // Who has a token goes on; nothing is spent.
        assert_eq!(program.get(&running).await.unwrap(), 200);
        program.server.expire_access_tokens();
        let error = program.get(&running).await.unwrap_err();
        assert!(found(&error).is_store() && !found(&error).is_logged_out(), "{error:?}");
        assert_eq!(program.server.counters().token_requests, 0);

        // The two ways out.
        let session = program.logged_in().await;
        assert_eq!(program.get(&session).await.unwrap(), 200);
        keychain.take(SERVICE, "default");
        program.session().log_out().await.unwrap();
        assert!(!program.session().is_logged_in().await.unwrap());
    });
}

#[test]
fn the_clis_next_login_takes_the_place_of_an_entry_that_was_lost() {
    in_a_session(
        "the_clis_next_login_takes_the_place_of_an_entry_that_was_lost",
        async |keychain| {
            let program = Program::new();
            let (server, directory) = (&program.server, program.state.path());
            let tokens = directory.join("tokens.json");
            let run = |args: &[&str]| {
                let output = programs::cli(directory, args).output().unwrap();
                (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
            };
            let log_in = || {
                std::fs::write(&tokens, server.log_in("alice").json()).unwrap();
                let (url, origin) = (server.token_url(), server.origin());
                let mut args = vec!["login", "--tokens-file", tokens.to_str().unwrap()];
                args.extend(["--token-endpoint", &url, "--origin", &origin, "--client-id", "cli"]);
                run(&args)
            };
            let call = || run(&["call", &server.api_url("things")]);
            assert_eq!(log_in().0, 0);
            assert_eq!(call().0, 0);
            let [(account, _)] = keychain.entries("reqwest-reauth-cli").try_into().unwrap();
            keychain.take("reqwest-reauth-cli", &account);
            let (code, said) = call();
            assert_eq!(code, 3, "{said}");
            assert!(said.contains("log in again: cli login --profile default"), "{said}");
            let (code, said) = log_in();
            assert_eq!(code, 0, "{said}");
            assert_eq!(call().0, 0);
        },
    );
}

#[test]
fn two_entries_of_one_name_are_told_and_a_login_puts_it_right() {
    in_a_session("two_entries_of_one_name_are_told_and_a_login_puts_it_right", async |keychain| {
        let program = Program::new();
        program.logged_in().await;
        keychain.put_beside(SERVICE, "default", b"another program's");
        let session = program.session();
        let error = session.is_logged_in().await.unwrap_err();
        assert!(error.is_store() && !error.is_transient() && !error.is_logged_out());
        assert!(chain(&error).contains("2 entries"), "{}", chain(&error));
        session.log_in(tokens(&program.server.log_in("alice"))).await.unwrap();
        assert_eq!(program.get(&session).await.unwrap(), 200);
        session.log_out().await.unwrap();
        assert_eq!(keychain.entries(SERVICE), []);
    });
}

#[test]
fn eight_writers_and_two_readers_see_whole_records_only() {
    in_a_session("eight_writers_and_two_readers_see_whole_records_only", async |keychain| {
        let record = |writer: u8| Record::from_bytes(&[b'a' + writer; 4000]);
        let store = || KeychainStore::new(SERVICE, "shared");
        store().save(&record(0)).unwrap();
        let start = Arc::new(std::sync::Barrier::new(10));
        let threads: Vec<_> = (0..10u8)
            .map(|n| {
                let start = Arc::clone(&start);
                std::thread::spawn(move || {
                    let store = store();
                    start.wait();
                    for _ in 0..20 {
                        if n < 8 {
                            store.save(&record(n)).unwrap();
                        } else {
                            let read = store.load().unwrap().expect("never missing");
                            let bytes = read.as_bytes();
                            assert!(bytes.len() == 4000 && bytes.iter().all(|b| *b == bytes[0]));
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(keychain.entries(SERVICE).len(), 1);
    });
}

// What happens to it.

#[test]
fn without_a_bus_the_error_says_what_to_do() {
    without_a_session("without_a_bus_the_error_says_what_to_do", async || {
        let program = Program::new();
        let session = program.session();
        let asked = soon(session.is_logged_in()).await.unwrap_err();
        let login = soon(session.log_in(tokens(&program.server.log_in("alice")))).await;
        let login = login.unwrap_err();
        for error in [&asked, &login] {
            assert!(error.is_store() && error.is_transient() && !error.is_logged_out());
            let text = chain(error);
            assert!(text.contains("no Secret Service") && text.contains("start one"), "{text}");
            assert!(text.contains("in a file"), "{text}");
        }
        assert!(login.tokens().is_some(), "given back");
        let error = program.get(&session).await.unwrap_err();
        assert!(found(&error).is_store(), "{error:?}");
        assert_eq!(program.server.counters().api_requests, 0);
    });
}

#[test]
fn without_a_provider_on_the_bus_the_error_says_what_to_do() {
    in_a_session(
        "without_a_provider_on_the_bus_the_error_says_what_to_do",
        async |mut keychain| {
            keychain.kill();
            let error = soon(Program::new().session().is_logged_in()).await.unwrap_err();
            assert!(error.is_store() && error.is_transient() && !error.is_logged_out());
            assert!(chain(&error).contains("no Secret Service answers"), "{}", chain(&error));
        },
    );
}

#[test]
fn a_user_without_a_default_keyring_is_told_so() {
    in_a_session("a_user_without_a_default_keyring_is_told_so", async |mut keychain| {
        keychain.kill();
        keychain.start_empty();
        let program = Program::new();
        let session = program.session();
        assert!(!session.is_logged_in().await.unwrap());
        let error = session.log_in(tokens(&program.server.log_in("alice"))).await.unwrap_err();
        assert!(error.is_store() && error.tokens().is_some(), "{error:?}");
        assert!(chain(&error).contains("no default keyring: make one"), "{}", chain(&error));
    });
}

#[test]
fn a_locked_keychain_logs_nobody_out_and_is_used_again_once_it_is_unlocked() {
    in_a_session(
        "a_locked_keychain_logs_nobody_out_and_is_used_again_once_it_is_unlocked",
        async |keychain| {
            let program = Program::new();
            let running = program.logged_in().await;
            keychain.lock();
            let started = program.session();
            let error = soon(started.is_logged_in()).await.unwrap_err();
            assert!(error.is_store() && error.is_transient() && !error.is_logged_out());
            let store = error.source().and_then(|e| e.downcast_ref()).unwrap();
            assert!(reqwest_reauth::StoreError::is_locked(store), "{error:?}");
            assert!(chain(&error).contains("unlock it"), "{}", chain(&error));
            // A valid token is served; what would need a refresh fails for now, unsent.
            assert_eq!(program.get(&running).await.unwrap(), 200);
            program.server.expire_access_tokens();
            let error = program.get(&running).await.unwrap_err();
            assert!(found(&error).is_store() && !found(&error).is_logged_out(), "{error:?}");
            assert_eq!(program.server.counters().token_requests, 0);

            keychain.unlock();
            assert!(soon(started.is_logged_in()).await.unwrap());
            wait_out(found(&error).retry_after()).await;
            assert_eq!(program.get(&running).await.unwrap(), 200);
            assert_eq!(program.server.counters().refreshes, 1);
        },
    );
}

#[test]
fn a_keychain_that_was_killed_is_used_again_once_it_is_back() {
    in_a_session(
        "a_keychain_that_was_killed_is_used_again_once_it_is_back",
        async |mut keychain| {
            let program = Program::new();
            let session = program.logged_in().await;
            // Restarted between two calls: nobody notices.
            keychain.restart();
            program.server.expire_access_tokens();
            assert_eq!(program.get(&session).await.unwrap(), 200);
            assert!(program.session().is_logged_in().await.unwrap(), "it was saved");

            keychain.kill();
            assert_eq!(program.get(&session).await.unwrap(), 200, "a valid token is served");
            program.server.expire_access_tokens();
            let error = program.get(&session).await.unwrap_err();
            assert!(found(&error).is_store() && !found(&error).is_logged_out(), "{error:?}");
            assert_eq!(program.server.counters().token_requests, 1, "nothing was sent");
            keychain.start();
            wait_out(found(&error).retry_after()).await;
            assert_eq!(program.get(&session).await.unwrap(), 200);
            let counters = program.server.counters();
            assert_eq!((counters.refreshes, counters.reuses), (2, 0));
        },
    );
}

#[test]
fn a_keychain_that_comes_back_locked_logs_nobody_out() {
    in_a_session("a_keychain_that_comes_back_locked_logs_nobody_out", async |mut keychain| {
        let program = Program::new();
        let session = program.logged_in().await;
        keychain.kill();
        keychain.start_locked();
        program.server.expire_access_tokens();
        let error = program.get(&session).await.unwrap_err();
        assert!(found(&error).is_store() && !found(&error).is_logged_out(), "{error:?}");
        keychain.unlock();
        wait_out(found(&error).retry_after()).await;
        assert_eq!(program.get(&session).await.unwrap(), 200);
    });
}

#[test]
fn a_keychain_that_hangs_is_given_up_in_time_and_used_again_once_it_goes_on() {
    in_a_session(
        "a_keychain_that_hangs_is_given_up_in_time_and_used_again_once_it_goes_on",
        async |mut keychain| {
            let program = Program::new();
            program.logged_in().await;
            keychain.freeze();
            let session = program.session();
            let start = Instant::now();
            let error = soon(session.is_logged_in()).await.unwrap_err();
            // 3 s for the answer, 1 s to find out that nobody is being asked.
            assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
            assert!(error.is_store() && error.is_transient() && !error.is_logged_out());
            assert!(chain(&error).contains("no answer within 3 seconds"), "{}", chain(&error));
            keychain.thaw();
            assert!(soon(session.is_logged_in()).await.unwrap());
            assert_eq!(program.get(&session).await.unwrap(), 200);
        },
    );
}

#[test]
fn a_runtime_and_a_session_end_at_once_while_a_read_hangs() {
    in_a_session("a_runtime_and_a_session_end_at_once_while_a_read_hangs", async |mut keychain| {
        let program = Program::new();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        keychain.freeze();
        let session = program.session();
        let asked = session.clone();
        let (asks, asking) = tokio::sync::oneshot::channel();
        let question = runtime.spawn(async move {
            let asked = asked.is_logged_in();
            asks.send(()).unwrap();
            asked.await
        });
        asking.await.unwrap();
        let start = Instant::now();
        // On a thread of its own: here, another runtime is in the way.
        std::thread::spawn(move || drop(runtime)).join().unwrap();
        assert!(question.await.unwrap_err().is_cancelled(), "it was under way");
        drop(session);
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        keychain.thaw();
    });
}

#[test]
fn a_keychain_that_hangs_after_the_rotation_loses_nothing() {
    in_a_session("a_keychain_that_hangs_after_the_rotation_loses_nothing", async |mut keychain| {
        let program = Program::new();
        let session = program.logged_in().await;
        program.server.expire_access_tokens();
        let held = program.server.hold_answers(Route::Token);
        let request = {
            let request = client(&session).get(program.server.api_url("things")).send();
            tokio::spawn(request)
        };
        soon(held.arrived(1)).await;
        keychain.freeze();
        held.release();
        // They are in the journal, and in use.
        assert_eq!(soon(request).await.unwrap().unwrap().status(), 200);
        keychain.thaw();
        // The next start has them.
        let next = program.session();
        program.server.expire_access_tokens();
        assert_eq!(program.get(&next).await.unwrap(), 200);
        let counters = program.server.counters();
        assert_eq!((counters.refreshes, counters.reuses), (2, 0));
        let sent = refresh_tokens_sent(&program.server);
        assert_ne!(sent[0], sent[1], "the spent one is never sent again");
    });
}

#[test]
fn a_hundred_requests_on_an_expired_token_make_one_refresh_and_one_entry() {
    in_a_session(
        "a_hundred_requests_on_an_expired_token_make_one_refresh_and_one_entry",
        async |keychain| {
            let program = Program::new();
            let session = program.logged_in().await;
            program.server.expire_access_tokens();
            let client = client(&session);
            let url = program.server.api_url("things");
            let requests = (0..100).map(|_| client.get(&url).send());
            for response in join_all(requests).await {
                assert_eq!(response.unwrap().status(), 200);
            }
            let counters = program.server.counters();
            assert_eq!((counters.refreshes, counters.reuses), (1, 0));
            assert_eq!(keychain.entries(SERVICE).len(), 1);
        },
    );
}

// What a person is asked, by a Secret Service that the test plays: GNOME Keyring's own prompts are
// for its own desktop.

#[test]
fn a_first_login_on_a_locked_keychain_waits_for_the_person_and_is_stored_once() {
    in_a_session(
        "a_first_login_on_a_locked_keychain_waits_for_the_person_and_is_stored_once",
        async |mut keychain| {
            keychain.kill();
            let (program, service) = (Program::new(), SecretService::start());
            service.lock();
            let session = program.logged_in().await;
            assert_eq!(service.counts(), (1, 1), "prompts and saves");
            assert_eq!(program.get(&session).await.unwrap(), 200);
            drop(session);
            let session = program.session();
            assert_eq!(program.get(&session).await.unwrap(), 200);
            session.log_out().await.unwrap();
            assert!(!service.has_entry());
            assert_eq!(service.counts(), (1, 1));
        },
    );
}

#[test]
fn a_person_who_is_asked_whether_the_program_may_read_its_entry_is_waited_for() {
    in_a_session(
        "a_person_who_is_asked_whether_the_program_may_read_its_entry_is_waited_for",
        async |mut keychain| {
            keychain.kill();
            let (program, service) = (Program::new(), SecretService::start());
            drop(program.logged_in().await);
            assert_eq!(service.counts(), (0, 1));
            service.lock_entry();
            let session = program.session();
            assert!(soon(session.is_logged_in()).await.unwrap());
            assert_eq!(service.counts(), (1, 1));
            // The collection is not locked, nor is what other programs have there.
            service.lock_entry();
            let other = KeychainStore::new(SERVICE, "other");
            assert!(!other.asks_a_person());
            assert!(KeychainStore::new(SERVICE, "default").asks_a_person());
            assert_eq!(service.counts(), (1, 1), "only listed");
        },
    );
}

const SERVICE: &str = "reauth-test";
