//! One refresh for everybody who needs it, and what becomes of one that fails.

mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::Extensions;
use mock_server::{ExpiresIn, Fault, MockServer, Route, What};
use reqwest::{Request, Response};
use reqwest_middleware::{ClientBuilder, Middleware, Next};
use reqwest_reauth::{Event, Events, LogoutReason, MemoryStore, OAuth2Endpoint, Session};
use serde_json::{Value, json};
use support::{
    Fixture, access_tokens_sent, client, found, refresh_tokens_sent, settle, soon, statuses,
    tokens_without_expiry,
};
use tokio::net::{TcpSocket, TcpStream};

#[tokio::test]
async fn six_requests_on_an_expired_token_make_one_refresh_before_they_are_sent() {
    let t = Fixture::expired(MockServer::start()).await;
    let hold = t.server.hold(Route::Token);
    let release = async {
        hold.arrived(1).await;
        settle().await;
        assert_eq!(t.server.counters().api_requests, 0);
        hold.release();
    };
    let (results, ()) = soon(async { tokio::join!(t.get_all(6), release) }).await;
    assert_eq!(statuses(results), [200; 6]);
    let counters = t.server.counters();
    assert_eq!(counters.token_requests, 1);
    assert_eq!(counters.refreshes, 1);
    assert_eq!(counters.api_requests, 6);
    assert_eq!(counters.api_unauthorized, 0);
    assert!(!access_tokens_sent(&t.server).contains(&t.issued.access_token));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn six_parallel_401s_make_one_refresh_and_each_request_is_sent_exactly_twice() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    t.server.barrier(Route::Api, 6);
    assert_eq!(statuses(soon(t.get_all(6)).await), [200; 6]);
    let counters = t.server.counters();
    assert_eq!(counters.refreshes, 1);
    assert_eq!(counters.reuses, 0);
    assert_eq!(counters.api_unauthorized, 6);
    assert_eq!(counters.api_requests, 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_requests_on_a_stale_token_make_one_refresh() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    t.server.barrier(Route::Api, 1000);
    assert_eq!(statuses(soon(t.get_all(1000)).await), [200; 1000]);
    let counters = t.server.counters();
    assert_eq!(counters.token_requests, 1);
    assert_eq!(counters.refreshes, 1);
    assert_eq!(counters.api_unauthorized, 1000);
    assert_eq!(counters.api_requests, 2000);
}

/// Without the barrier: some are sent before, some during and some after the refresh.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_requests_around_a_refresh_make_no_second_one() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    assert_eq!(statuses(soon(t.get_all(1000)).await), [200; 1000]);
    let counters = t.server.counters();
    assert_eq!(counters.token_requests, 1);
    assert_eq!(counters.api_requests, 1000 + counters.api_unauthorized);
}

#[tokio::test]
async fn a_late_401_on_an_older_token_is_replayed_with_the_current_one_without_a_refresh() {
    let set =
        |builder: reqwest_reauth::SessionBuilder| builder.min_refresh_interval(Duration::ZERO);
    let t = Fixture::with(MockServer::start(), set).await;
    t.server.expire_access_tokens();
    let hold = t.server.hold_answers(Route::Api);
    let meanwhile = async {
        hold.arrived(1).await;
        let mut token = t.session.access_token().await.unwrap();
        for _ in 0..2 {
            token = t.session.refused(&token).await.unwrap();
        }
        hold.release();
        token
    };
    let (status, current) = soon(async { tokio::join!(t.get("things"), meanwhile) }).await;
    assert_eq!(status.unwrap(), 200);
    assert_eq!(t.server.counters().token_requests, 2);
    let sent = [t.issued.access_token.as_str(), current.secret()];
    assert_eq!(access_tokens_sent(&t.server), sent);
    assert_eq!(t.session.metrics().adoptions, 0, "nor was it found in the store");
}

#[tokio::test]
async fn requests_that_arrive_during_a_refresh_wait_for_it_though_their_token_looks_fresh() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    let hold = t.server.hold(Route::Token);
    let later = async {
        hold.arrived(1).await;
        let release = async {
            settle().await;
            assert_eq!(t.server.counters().api_requests, 1);
            hold.release();
        };
        tokio::join!(t.get_all(50), release).0
    };
    let (first, later) = soon(async { tokio::join!(t.get("first"), later) }).await;
    assert_eq!(first.unwrap(), 200);
    assert_eq!(statuses(later), [200; 50]);
    let counters = t.server.counters();
    assert_eq!(counters.token_requests, 1);
    assert_eq!(counters.api_unauthorized, 1);
    assert_eq!(counters.api_requests, 52);
}

#[tokio::test]
async fn fifty_waiters_of_a_refresh_that_fails_get_the_same_error_of_one_post() {
    let t = Fixture::expired(MockServer::start()).await;
    let mut events = t.session.events();
    t.server.on_next(Route::Token, 50, Fault::status(403));
    let hold = t.server.hold(Route::Token);
    let release = async {
        hold.arrived(1).await;
        settle().await;
        hold.release();
    };
    let (results, ()) = soon(async { tokio::join!(t.get_all(50), release) }).await;
    let told: Vec<_> = results
        .iter()
        .map(|result| {
            let error = found(result.as_ref().unwrap_err());
            assert!(error.is_transient());
            // A random number: only a copy has the same.
            (format!("{error:?}"), error.retry_after().unwrap())
        })
        .collect();
    assert_eq!(told, vec![told[0].clone(); 50]);
    assert_eq!(t.server.counters().token_requests, 1);
    assert_eq!(t.server.counters().api_requests, 0);
    assert_eq!(names(&mut events), ["refresh failed"]);
}

#[tokio::test]
async fn nothing_is_sent_in_the_cooldown_and_the_next_request_after_it_refreshes_again() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    t.server.on_next(Route::Token, 1, Fault::status(429).header("retry-after", "2"));
    let first = soon(t.get("things")).await.unwrap_err();
    assert_eq!(found(&first).retry_after(), Some(Duration::from_secs(2)));
    let second = soon(t.get("things")).await.unwrap_err();
    let wait = found(&second).retry_after().unwrap();
    assert!(wait <= Duration::from_secs(2));
    assert_eq!(t.server.counters().token_requests, 1);

    tokio::time::sleep(wait).await;
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    assert_eq!(t.server.counters().token_requests, 2);
}

#[tokio::test]
async fn the_cooldown_grows_with_each_failure_up_to_its_cap_and_is_always_told() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    t.server.on_next(Route::Token, 4, Fault::status(408));
    for (failures, cap) in [200, 400, 800, 1600].into_iter().enumerate() {
        let error = soon(t.get("things")).await.unwrap_err();
        let wait = found(&error).retry_after().unwrap();
        assert!(wait <= Duration::from_millis(cap), "{wait:?} after {failures} failures");
        assert_eq!(t.server.counters().token_requests, failures as u64 + 1);
        tokio::time::sleep(wait).await;
    }
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    assert_eq!(t.server.counters().token_requests, 5);
}

#[tokio::test]
async fn twenty_refreshes_in_a_row_send_each_rotated_token_once() {
    let server = MockServer::builder().expires_in(ExpiresIn::Absent).start().unwrap();
    let t = Fixture::at(server).await;
    let mut expected = vec![t.issued.refresh_token.clone()];
    for n in 1..=20 {
        t.server.expire_access_tokens();
        assert_eq!(soon(t.get("things")).await.unwrap(), 200);
        assert_eq!(t.server.counters().refreshes, n);
        expected.push(t.server.current_refresh_token(t.issued.family).unwrap());
    }
    let unspent = expected.pop().unwrap();
    assert_eq!(refresh_tokens_sent(&t.server), expected);
    let mut history = vec![What::Login];
    history.resize(21, What::Rotated);
    assert_eq!(what_happened(&t), history);
    let record = String::from_utf8(t.record().unwrap()).unwrap();
    assert!(record.contains(&unspent), "the newest refresh token is in the store");
    assert_eq!(t.server.counters().api_requests, 40);
}

#[tokio::test]
async fn a_refresh_token_that_the_answer_omits_is_kept() {
    let server = MockServer::builder().rotation(false).start().unwrap();
    let t = Fixture::at(server).await;
    for _ in 0..3 {
        t.server.expire_access_tokens();
        assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    }
    assert_eq!(refresh_tokens_sent(&t.server), vec![t.issued.refresh_token.clone(); 3]);
    let (login, refreshed) = (What::Login, What::Refreshed);
    assert_eq!(what_happened(&t), [login, refreshed, refreshed, refreshed]);
}

#[tokio::test]
async fn a_transient_failure_keeps_the_tokens_and_the_next_refresh_succeeds() {
    let html = "<html><body>Sign in to the network</body></html>";
    let faults = [
        // sent once, as the answer was whole
        (Fault::status(400), 1),
        (Fault::status(401), 1),
        (Fault::status(403).body(html), 1),
        (Fault::status(418), 1),
        (Fault::status(200).header("content-type", "text/html").body(html), 1),
        (Fault::status(200).json(&json!({})), 1),
        (Fault::status(200).json(&json!({"access_token": ""})), 1),
        (Fault::status(400).json(&json!({"error": "slow_down"})), 1),
        (Fault::status(429), 1),
        (Fault::status(503).header("retry-after", "0"), 1),
        // sent twice, as it was not
        (Fault::status(500), 2),
        (Fault::status(502).body(html), 2),
        (Fault::status(503), 2),
        (Fault::status(504), 2),
        (Fault::status(500).json(&json!({"error": "invalid_grant"})), 2),
        (Fault::DropBefore, 2),
    ];
    for (fault, posts) in faults {
        let t = Fixture::new().await;
        let (mut events, before) = (t.session.events(), t.record());
        t.server.expire_access_tokens();
        t.server.on_next(Route::Token, posts, fault.clone());
        let error = soon(t.get("things")).await.unwrap_err();
        let error = found(&error);
        assert!(error.is_transient(), "{fault:?}: {error:?}");
        assert!(!error.is_logged_out() && !error.is_configuration(), "{fault:?}");
        assert_eq!(t.server.counters().token_requests, posts as u64, "{fault:?}");
        assert_eq!(t.record(), before, "{fault:?}");
        assert!(t.session.is_logged_in().await.unwrap());

        tokio::time::sleep(error.retry_after().unwrap()).await;
        assert_eq!(soon(t.get("things")).await.unwrap(), 200, "{fault:?}");
        assert_eq!(t.server.counters().token_requests, posts as u64 + 1, "{fault:?}");
        assert_eq!(t.server.counters().reuses, 0, "{fault:?}");
        assert_eq!(names(&mut events), ["refresh failed", "refreshed"], "{fault:?}");
        t.session.drain().await;
        assert_eq!(t.logouts.all(), []);
    }
}

#[tokio::test]
async fn what_the_program_has_to_put_right_is_told_so_and_keeps_the_tokens() {
    let refused = |error: &str| Fault::status(400).json(&json!({"error": error}));
    let faults = [
        Fault::status(401).json(&json!({"error": "invalid_client"})),
        refused("unauthorized_client"),
        refused("invalid_scope"),
        refused("unsupported_grant_type"),
        Fault::status(404),
        Fault::status(307).header("location", "/token"),
    ];
    for fault in faults {
        let t = Fixture::new().await;
        let (mut events, before) = (t.session.events(), t.record());
        t.server.expire_access_tokens();
        t.server.on_next(Route::Token, 1, fault.clone());
        let error = soon(t.get("things")).await.unwrap_err();
        let error = found(&error);
        assert!(error.is_configuration(), "{fault:?}: {error:?}");
        assert!(!error.is_transient() && !error.is_logged_out(), "{fault:?}");
        assert_eq!(t.server.counters().token_requests, 1, "{fault:?}");
        assert_eq!(t.record(), before, "{fault:?}");
        assert!(t.session.is_logged_in().await.unwrap());
        assert_eq!(names(&mut events), ["refresh failed"], "{fault:?}");
    }
}

#[tokio::test]
async fn a_client_that_the_server_does_not_know_is_a_configuration_error() {
    let server = MockServer::builder().client("somebody-else", None).start().unwrap();
    let t = Fixture::at(server).await;
    t.server.expire_access_tokens();
    let error = soon(t.get("things")).await.unwrap_err();
    assert!(found(&error).is_configuration());
    let counters = t.server.counters();
    assert_eq!(counters.client_failures, 1);
    assert_eq!(counters.token_requests, 1);
    assert!(t.session.is_logged_in().await.unwrap());
    assert!(t.record().is_some());
}

#[tokio::test]
async fn a_token_endpoint_that_answers_401_is_asked_once() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    t.server.on_next(Route::Token, 100, Fault::status(401));
    let error = soon(t.get("things")).await.unwrap_err();
    assert!(found(&error).is_transient());
    assert_eq!(t.server.counters().token_requests, 1);
    assert_eq!(t.server.counters().api_requests, 1);
}

#[tokio::test]
async fn a_refresh_carries_no_access_token_and_never_passes_the_clients_middleware() {
    let t = Fixture::new().await;
    let seen = Seen::default();
    let client = ClientBuilder::new(reqwest::Client::new())
        .with(seen.clone())
        .with(t.session.middleware())
        .with(seen.clone())
        .build();
    t.server.expire_access_tokens();
    let response = soon(client.get(t.server.api_url("things")).send()).await.unwrap();
    assert_eq!(response.status(), 200);
    // The caller's, and its two sends.
    assert_eq!(*seen.0.lock().unwrap(), ["/api/things"; 3]);
    let refreshes = t.server.requests(Route::Token);
    assert_eq!(refreshes.len(), 1);
    assert_eq!(refreshes[0].header("authorization"), None);
    assert_eq!(refresh_tokens_sent(&t.server), [t.issued.refresh_token.as_str()]);
}

#[tokio::test]
async fn a_second_401_is_returned_without_a_third_send() {
    let t = Fixture::new().await;
    t.server.refuse_path("/api/always");
    let response = soon(t.send("always")).await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(response.text().await.unwrap(), r#"{"error":"Unauthorized"}"#);
    let counters = t.server.counters();
    assert_eq!(counters.api_requests, 2);
    assert_eq!(counters.refreshes, 1);
    let sent = access_tokens_sent(&t.server);
    assert_eq!(sent[0], t.issued.access_token);
    assert_ne!(sent[1], sent[0]);
    t.session.drain().await;
    assert_eq!(t.logouts.all(), []);
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
}

#[tokio::test]
async fn expires_in_is_taken_in_any_form_and_what_is_no_lifetime_counts_as_unknown() {
    let ten_years = 10 * 365 * 24 * 3600 * 1000;
    let said = |value: Value| ExpiresIn::Value(value);
    let rows = [
        (said(json!(3600)), Some(3_600_000)),
        (said(json!("3600")), Some(3_600_000)),
        (said(json!(3600.5)), Some(3_600_500)),
        (said(json!(1e300)), Some(ten_years)),
        (said(json!(u64::MAX)), Some(ten_years)),
        (said(json!(0)), None),
        (said(json!(-1)), None),
        (said(json!("soon")), None),
        (said(json!("")), None),
        (said(json!(null)), None),
        (said(json!(true)), None),
        (said(json!([3600])), None),
        (said(json!({"seconds": 3600})), None),
        (ExpiresIn::Absent, None),
    ];
    for (said, expected) in rows {
        let server = MockServer::builder().expires_in(said.clone()).start().unwrap();
        let t = Fixture::at(server).await;
        // Twice: what a login says, and what a refresh says.
        for refreshes in 0..2 {
            let status = t.session.status().await.unwrap();
            let received = status.received_at().unwrap();
            let lifetime = status.expires_at().map(|end| end.duration_since(received).unwrap());
            assert_eq!(lifetime, expected.map(Duration::from_millis), "{said:?}");
            assert_eq!(status.refreshes(), refreshes, "{said:?}");
            t.server.expire_access_tokens();
            assert_eq!(soon(t.get("things")).await.unwrap(), 200, "{said:?}");
            assert_eq!(soon(t.get("things")).await.unwrap(), 200, "{said:?}");
            assert_eq!(t.server.counters().token_requests, refreshes + 1, "{said:?}");
        }
    }
}

#[tokio::test]
async fn a_token_type_may_have_any_case_or_be_absent_and_another_one_is_not_used() {
    for (kind, taken) in [
        (json!("bearer"), true),
        (json!("BEARER"), true),
        (Value::Null, true),
        (json!("mac"), false),
        (json!("DPoP"), false),
    ] {
        let t = Fixture::new().await;
        t.server.expire_access_tokens();
        let said = kind.clone();
        let rewrite = Fault::rewrite(move |answer| answer["token_type"] = said.clone());
        t.server.on_next(Route::Token, 1, rewrite);
        match soon(t.get("things")).await {
            Ok(status) => assert_eq!((status, taken), (200, true), "{kind}"),
            Err(error) => {
                assert!(!taken, "{kind}");
                assert!(found(&error).is_transient(), "{kind}");
                assert!(t.session.is_logged_in().await.unwrap());
            }
        }
        assert_eq!(t.server.counters().token_requests, 1, "{kind}");
    }
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_at_once_and_costs_nothing_in_the_grace_window() {
    for (fault, replays) in [(Fault::DropBefore, 0), (Fault::DropAfter, 1), (Fault::DropHalf, 1)] {
        let server = MockServer::builder().grace(GRACE).start().unwrap();
        let t = Fixture::at(server).await;
        t.server.expire_access_tokens();
        t.server.on_next(Route::Token, 1, fault.clone());
        assert_eq!(soon(t.get("things")).await.unwrap(), 200, "{fault:?}");
        let counters = t.server.counters();
        assert_eq!(counters.token_requests, 2, "{fault:?}");
        assert_eq!(counters.refreshes, 1, "{fault:?}");
        assert_eq!(counters.grace_replays, replays, "{fault:?}");
        assert_eq!(counters.reuses, 0, "{fault:?}");
        let sent = refresh_tokens_sent(&t.server);
        assert_eq!(sent, vec![t.issued.refresh_token.clone(); 2], "{fault:?}");
        assert_eq!(t.session.status().await.unwrap().refreshes(), 1, "{fault:?}");

        // What it brought is as good as any.
        t.server.expire_access_tokens();
        assert_eq!(soon(t.get("things")).await.unwrap(), 200, "{fault:?}");
        assert_eq!(t.server.counters().refreshes, 2, "{fault:?}");
        assert_eq!(t.server.counters().reuses, 0, "{fault:?}");
        assert_eq!(t.logouts.all(), [], "{fault:?}");
    }
}

#[tokio::test]
async fn a_lost_answer_without_a_grace_window_ends_the_session_as_rotation_lost() {
    for fault in [Fault::DropAfter, Fault::DropHalf] {
        let t = Fixture::new().await;
        t.server.expire_access_tokens();
        t.server.on_next(Route::Token, 1, fault.clone());
        let error = soon(t.get("things")).await.unwrap_err();
        let error = found(&error);
        assert!(error.is_logged_out(), "{fault:?}: {error:?}");
        assert_eq!(error.logout_reason(), Some(LogoutReason::RotationLost), "{fault:?}");
        let counters = t.server.counters();
        assert_eq!(counters.token_requests, 2, "{fault:?}");
        assert_eq!(counters.reuses, 1, "{fault:?}");
        t.session.drain().await;
        assert_eq!(t.logouts.all(), [LogoutReason::RotationLost], "{fault:?}");
        assert_eq!(t.record(), None, "{fault:?}");
    }
}

#[tokio::test]
async fn two_lost_answers_are_transient_and_the_next_refresh_sends_the_token_once_more() {
    let server = MockServer::builder().grace(GRACE).start().unwrap();
    let t = Fixture::at(server).await;
    t.server.expire_access_tokens();
    t.server.on_next(Route::Token, 2, Fault::DropAfter);
    let error = soon(t.get("things")).await.unwrap_err();
    assert!(found(&error).is_transient());
    assert_eq!(t.server.counters().token_requests, 2);

    tokio::time::sleep(found(&error).retry_after().unwrap()).await;
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    let counters = t.server.counters();
    assert_eq!(counters.token_requests, 3);
    assert_eq!(counters.refreshes, 1);
    assert_eq!(counters.grace_replays, 2);
    assert_eq!(counters.reuses, 0);
    assert_eq!(refresh_tokens_sent(&t.server), vec![t.issued.refresh_token.clone(); 3]);
}

#[tokio::test]
async fn invalid_grant_after_a_refresh_that_was_never_answered_means_rotation_lost() {
    let busy = || Fault::status(429).header("retry-after", "0");
    for (faults, reason) in [
        // The first transaction leaves the question open, and a busy server does not answer it.
        (vec![Fault::DropBefore, Fault::DropBefore], LogoutReason::RotationLost),
        (vec![Fault::DropBefore, Fault::DropBefore, busy()], LogoutReason::RotationLost),
        (vec![Fault::status(403)], LogoutReason::RotationLost),
        // A busy server has not looked at the token.
        (vec![busy()], LogoutReason::Revoked),
        (vec![], LogoutReason::Revoked),
    ] {
        let t = Fixture::new().await;
        t.server.revoke_family(t.issued.family);
        for fault in &faults {
            t.server.on_next(Route::Token, 1, fault.clone());
        }
        let error = soon(async {
            loop {
                let error = t.get("things").await.unwrap_err();
                match found(&error).retry_after() {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => break found(&error).clone(),
                }
            }
        })
        .await;
        assert_eq!(error.logout_reason(), Some(reason), "{faults:?}");
        let posts = t.server.counters().token_requests;
        assert_eq!(posts, faults.len() as u64 + 1, "{faults:?}");
    }
}

#[tokio::test]
async fn retry_after_is_told_to_everybody_capped_at_an_hour() {
    for (said, seconds) in [("7", 7), ("86400", 3600), ("99999999999999999999999", 3600)] {
        // After a 403 the token may be spent, which changes nothing of the wait.
        for code in [429, 503, 403] {
            let t = Fixture::expired(MockServer::start()).await;
            let busy = Fault::status(code).header("retry-after", said);
            t.server.on_next(Route::Token, 1, busy);
            let hold = t.server.hold(Route::Token);
            let start = Instant::now();
            let release = async {
                hold.arrived(1).await;
                settle().await;
                hold.release();
            };
            let (results, ()) = soon(async { tokio::join!(t.get_all(50), release) }).await;
            let whole = Duration::from_secs(seconds);
            for result in &results {
                let error = found(result.as_ref().unwrap_err());
                assert!(error.is_transient());
                assert_eq!(error.retry_after(), Some(whole));
            }
            // Who comes later is told what is left of it.
            for result in soon(t.get_all(50)).await {
                let error = result.unwrap_err();
                let left = found(&error).retry_after().unwrap();
                assert!(left < whole, "{left:?}");
                assert!(left + start.elapsed() >= whole, "{left:?}");
            }
            assert_eq!(t.server.counters().token_requests, 1);
        }
    }
}

#[tokio::test]
async fn what_the_server_has_asked_to_wait_holds_though_its_next_answer_is_lost() {
    let t = Fixture::expired(MockServer::start()).await;
    t.server.on_next(Route::Token, 1, Fault::status(502).header("retry-after", "7"));
    t.server.on_next(Route::Token, 1, Fault::DropBefore);
    let error = t.get("things").await.unwrap_err();
    assert_eq!(found(&error).retry_after(), Some(Duration::from_secs(7)));
    assert_eq!(t.server.requests(Route::Token).len(), 2);
}

#[tokio::test]
async fn retry_after_may_be_a_date() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    let date = std::time::SystemTime::now() + Duration::from_secs(600);
    let busy = Fault::status(429).header("retry-after", httpdate::fmt_http_date(date));
    t.server.on_next(Route::Token, 1, busy);
    let error = soon(t.get("things")).await.unwrap_err();
    let wait = found(&error).retry_after().unwrap();
    assert!(wait <= Duration::from_secs(600), "{wait:?}");
    // `soon`, and the fraction of a second that a date can't have.
    assert!(wait > Duration::from_secs(600 - 21), "{wait:?}");
}

#[tokio::test]
async fn a_refused_connection_is_transient_and_the_session_goes_on_once_the_server_is_back() {
    let server = MockServer::start();
    // Bound, and not listening yet: connections are refused, and nobody can take the port.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let front = socket.local_addr().unwrap();
    let endpoint = OAuth2Endpoint::new(format!("http://{front}/token"), "test");
    let session = Session::builder("test", endpoint)
        .origin(server.origin())
        .store(MemoryStore::new())
        .build()
        .unwrap();
    let issued = server.log_in("alice");
    session.log_in(tokens_without_expiry(&issued)).await.unwrap();
    server.expire_access_tokens();
    let client = client(&session);
    let get = || client.get(server.api_url("things")).send();

    let error = soon(get()).await.unwrap_err();
    assert!(found(&error).is_transient());
    assert!(session.is_logged_in().await.unwrap());
    assert_eq!(server.counters().token_requests, 0);

    let (listener, back) = (socket.listen(64).unwrap(), server.addr());
    let relay = tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let mut to = TcpStream::connect(back).await.unwrap();
            // An error: one side hung up.
            let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
        }
    });
    tokio::time::sleep(found(&error).retry_after().unwrap()).await;
    assert_eq!(soon(get()).await.unwrap().status(), 200);
    assert_eq!(server.counters().token_requests, 1);
    assert_eq!(server.counters().refreshes, 1);
    relay.abort();
}

/// Notes the path of every request that passes.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

#[async_trait::async_trait]
impl Middleware for Seen {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        self.0.lock().unwrap().push(request.url().path().to_owned());
        next.run(request, extensions).await
    }
}

fn what_happened(t: &Fixture) -> Vec<What> {
    t.server.history(t.issued.family).iter().map(|entry| entry.what).collect()
}

fn names(events: &mut Events) -> Vec<&'static str> {
    let mut names = Vec::new();
    while let Some(event) = events.try_next() {
        names.push(match event {
            Event::Refreshed => "refreshed",
            Event::RefreshFailed(_) => "refresh failed",
            Event::LoggedOut(_) => "logged out",
            _ => "another",
        });
    }
    names
}

/// Far longer than a test takes.
const GRACE: Duration = Duration::from_secs(10);
