//! What no refresh cures does not lead to a storm of them, and what one cures still does.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::Extensions;
use mock_server::{ExpiresIn, Fault, MockServer, Route};
use reqwest::{Request, Response};
use reqwest_middleware::{ClientBuilder, Middleware, Next};
use reqwest_reauth::{
    Event, LogoutReason, NotReplayed, RefreshWithheld, SessionBuilder, StepUpRequired,
};
use support::{
    Fixture, access_tokens_sent, builder, client, found, join_all, settle, soon, statuses, tokens,
};
use tokio::sync::Notify;

#[tokio::test]
async fn the_sixth_refresh_in_thirty_seconds_that_no_expiry_explains_is_withheld() {
    let t = Fixture::new().await;
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    let start = Instant::now();
    spend_budget(&t).await;
    let sent = t.server.counters().api_requests;

    t.server.expire_access_tokens();
    let sixth = soon(t.send("things")).await.unwrap();
    let wait = withheld(&sixth).expect("marked");
    assert!(wait <= BUDGET_WINDOW, "{wait:?}");
    // Until the first of the five is thirty seconds old.
    assert!(wait + start.elapsed() >= BUDGET_WINDOW, "{wait:?}");
    assert_eq!(sixth.status(), 401);
    assert_eq!(sixth.text().await.unwrap(), r#"{"error":"Unauthorized"}"#);
    assert_eq!(t.server.counters().api_requests, sent + 1);

    assert_eq!(statuses(soon(t.get_all(100)).await), [401; 100]);
    assert_eq!(t.server.counters().token_requests, 5);
    assert_eq!(t.server.counters().api_requests, sent + 101);
    soon(t.session.drain()).await;
    assert_eq!(t.logouts.all(), []);
    assert!(t.session.is_logged_in().await.unwrap());
}

#[tokio::test]
async fn beyond_the_budget_a_token_refused_outside_http_gets_a_transient_error() {
    let t = Fixture::with(MockServer::start(), no_interval).await;
    let mut token = t.session.access_token().await.unwrap();
    for n in 1..=5 {
        token = soon(t.session.refused(&token)).await.unwrap();
        assert_eq!(t.server.counters().token_requests, n);
    }
    let error = soon(t.session.refused(&token)).await.unwrap_err();
    assert!(error.is_transient());
    let wait = error.retry_after().unwrap();
    assert!(wait <= BUDGET_WINDOW && wait > Duration::ZERO, "{wait:?}");
    assert_eq!(t.server.counters().token_requests, 5);
    // The token is as good as before, as far as anybody knows.
    assert_eq!(t.session.access_token().await.unwrap().secret(), token.secret());
}

#[tokio::test]
async fn refreshes_that_failed_on_the_network_do_not_count_in_the_budget() {
    let t = Fixture::new().await;
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    for n in 1..=5 {
        t.server.expire_access_tokens();
        t.server.on_next(Route::Token, 2, Fault::DropBefore);
        let error = soon(t.get("things")).await.unwrap_err();
        tokio::time::sleep(found(&error).retry_after().unwrap()).await;
        assert_eq!(soon(t.get("things")).await.unwrap(), 200);
        assert_eq!(t.server.counters().token_requests, 3 * n);
    }
    t.server.expire_access_tokens();
    let sixth = soon(t.send("things")).await.unwrap();
    assert!(withheld(&sixth).is_some());
    assert_eq!(t.server.counters().refreshes, 5);
}

#[tokio::test]
async fn refreshes_of_tokens_that_ended_as_they_said_do_not_count_in_the_budget() {
    let server = MockServer::builder()
        .access_ttl(Duration::from_millis(20))
        .expires_in(ExpiresIn::Value(serde_json::json!(0.02)))
        .start()
        .unwrap();
    let t = Fixture::at(server).await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(25)).await;
        soon(t.session.access_token()).await.unwrap();
    }
    assert_eq!(t.server.counters().refreshes, 10);
}

#[tokio::test]
async fn tokens_that_live_two_seconds_and_do_not_say_so_keep_working() {
    let server = MockServer::builder().expires_in(ExpiresIn::Absent).start().unwrap();
    let t = Fixture::at(server).await;
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    for n in 1..=20 {
        // Two seconds have passed, say.
        t.server.expire_access_tokens();
        let path = if n % 2 == 0 { "things" } else { "others" };
        assert_eq!(soon(t.get(path)).await.unwrap(), 200);
        assert_eq!(t.server.counters().refreshes, n);
    }
}

#[tokio::test]
async fn tokens_without_expires_in_that_nobody_accepted_count_in_the_budget() {
    let server = MockServer::builder().expires_in(ExpiresIn::Absent).start().unwrap();
    let t = Fixture::with(server, no_interval).await;
    let mut token = t.session.access_token().await.unwrap();
    for _ in 0..5 {
        token = soon(t.session.refused(&token)).await.unwrap();
    }
    assert!(soon(t.session.refused(&token)).await.unwrap_err().retry_after().is_some());
    assert_eq!(t.server.counters().token_requests, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_requests_to_an_endpoint_that_always_answers_401_make_one_refresh() {
    let t = Fixture::new().await;
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    t.server.refuse_path("/api/always");
    let sent = t.server.counters().api_requests;
    // All of them on the token of the login, so that each has reason to ask for a refresh.
    t.server.barrier(Route::Api, 1000);
    let responses = soon(send_all(&t, vec!["always".to_owned(); 1000])).await;
    for response in &responses {
        assert_eq!(response.status(), 401);
        assert_eq!(withheld(response), None);
    }
    assert_eq!(t.server.counters().token_requests, 1);
    assert_eq!(t.server.counters().api_requests, sent + 2000);

    for response in soon(send_all(&t, vec!["always".to_owned(); 1000])).await {
        assert_eq!(response.status(), 401);
        let wait = withheld(&response).expect("marked");
        assert!(wait <= Duration::from_secs(10), "{wait:?}");
    }
    assert_eq!(t.server.counters().token_requests, 1);
    assert_eq!(t.server.counters().api_requests, sent + 3000);

    // Other endpoints see nothing of it, and have their refreshes.
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    t.server.expire_access_tokens();
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    assert_eq!(t.server.counters().refreshes, 2);
    assert_eq!(t.logouts.all(), []);
}

#[tokio::test]
async fn a_loop_over_an_endpoint_that_always_answers_401_makes_one_refresh() {
    let t = Fixture::new().await;
    t.server.refuse_path("/api/always");
    for n in 0..300 {
        let response = soon(t.send("always")).await.unwrap();
        assert_eq!(response.status(), 401);
        assert_eq!(withheld(&response).is_some(), n > 0);
        assert_eq!(soon(t.get(&format!("things/{}", n % 3))).await.unwrap(), 200);
    }
    let counters = t.server.counters();
    assert_eq!(counters.token_requests, 1);
    assert_eq!(counters.api_unauthorized, 301);
    assert_eq!(counters.api_ok, 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_paths_that_always_answer_401_cost_one_refresh() {
    let t = Fixture::new().await;
    let paths: Vec<_> = (0..1000).map(|n| format!("always/{n}")).collect();
    for path in &paths {
        t.server.refuse_path(&format!("/api/{path}"));
    }
    for response in soon(send_all(&t, paths)).await {
        assert_eq!(response.status(), 401);
    }
    assert_eq!(t.server.counters().token_requests, 1);
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
}

/// Requests of both kinds at once: what is accepted elsewhere says nothing about the endpoint.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_endpoint_that_always_answers_401_amid_other_traffic_costs_one_refresh() {
    let t = Fixture::new().await;
    t.server.refuse_path("/api/always");
    let paths = (0..1000).map(|n| match n % 2 {
        0 => "always".to_owned(),
        _ => format!("things/{}", n % 10),
    });
    let responses = soon(send_all(&t, paths.collect())).await;
    for (n, response) in responses.iter().enumerate() {
        assert_eq!(response.status(), if n % 2 == 0 { 401 } else { 200 });
    }
    assert_eq!(t.server.counters().token_requests, 1);
}

/// One accepted path only: a thousand more would meet it in the table of accepted paths.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_paths_that_always_answer_401_amid_other_traffic_cost_one_refresh() {
    let t = Fixture::new().await;
    let path = |n| format!("always/{n}");
    (0..1000).for_each(|n| t.server.refuse_path(&format!("/api/{}", path(n))));
    let paths = (0..1200).map(|n| match n % 6 {
        0 => "things".to_owned(),
        _ => path(n - n / 6 - 1),
    });
    let responses = soon(send_all(&t, paths.collect())).await;
    for (n, response) in responses.iter().enumerate() {
        assert_eq!(response.status(), if n % 6 == 0 { 200 } else { 401 });
    }
    assert_eq!(t.server.counters().token_requests, 1);
}

/// One refresh, wanted by two new paths: it helps the one, and the other one's replay is still on
/// its way.
#[tokio::test]
async fn a_refresh_that_cured_another_path_is_not_repeated_before_the_replay_has_told() {
    let t = Fixture::new().await;
    t.server.refuse_path("/api/always");
    t.server.expire_access_tokens();
    let (replay, answer) = (Park::before(1), Park::after(0));
    let get = |park: &Park, path: &str| {
        let stack = ClientBuilder::new(reqwest::Client::new()).with(t.session.middleware());
        let request = stack.with(park.clone()).build().get(t.server.api_url(path));
        tokio::spawn(async move { request.send().await.unwrap().status() })
    };
    let hold = t.server.hold(Route::Token);
    t.server.barrier(Route::Api, 2);
    let (always, cured) = (get(&replay, "always"), get(&answer, "cured"));
    hold.arrived(1).await;
    soon(answer.parked.notified()).await;
    answer.open.notify_one();
    settle().await;
    // Both wait for the refresh now.
    hold.release();
    soon(replay.parked.notified()).await;
    assert_eq!(soon(cured).await.unwrap(), 200);
    assert_eq!(soon(t.get("always")).await.unwrap(), 401);
    assert_eq!(t.server.counters().token_requests, 1);
    replay.open.notify_one();
    assert_eq!(soon(always).await.unwrap(), 401);
    assert_eq!(t.server.counters().token_requests, 1);
}

/// There is no replay to tell that the refresh was of no use; the next 401 there does. That they
/// were accepted before makes no difference.
#[tokio::test]
async fn uploads_that_cannot_be_replayed_and_are_always_refused_make_one_refresh() {
    for is_accepted_at_first in [false, true] {
        refuse_uploads(is_accepted_at_first).await;
    }
}

async fn refuse_uploads(is_accepted_at_first: bool) {
    let t = Fixture::new().await;
    let upload = async || {
        let file = tokio::fs::File::open("Cargo.toml").await.unwrap();
        soon(t.client.post(t.server.api_url("upload")).body(file).send()).await.unwrap()
    };
    if is_accepted_at_first {
        assert_eq!(upload().await.status(), 200);
    }
    t.server.refuse_path("/api/upload");
    for n in 0..10 {
        let response = upload().await;
        assert_eq!(response.status(), 401);
        assert_eq!(response.extensions().get::<NotReplayed>().is_some(), n == 0);
        assert_eq!(withheld(&response).is_some(), n > 0);
        assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    }
    assert_eq!(t.server.counters().token_requests, 1);
}

/// The same, in the order that is worst: the token is accepted elsewhere, and refused at the
/// endpoint once more, while the replay that will tell is still on its way.
#[tokio::test]
async fn a_401_at_an_endpoint_whose_replay_is_on_its_way_makes_no_second_refresh() {
    let t = Fixture::new().await;
    t.server.refuse_path("/api/always");
    let hold = t.server.hold(Route::Token);
    let meanwhile = async {
        hold.arrived(1).await;
        t.server.on_next(Route::Api, 1, Fault::Delay(Duration::from_secs(1)));
        let mut events = t.session.events();
        hold.release();
        assert!(matches!(events.next().await, Some(Event::Refreshed)));
        while t.server.counters().api_requests < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(t.get("things").await.unwrap(), 200);
        let second = t.send("always").await.unwrap();
        assert_eq!(second.status(), 401);
        assert_eq!(t.server.requests(Route::Api)[1].status, None, "the replay is on its way");
    };
    let (first, ()) = soon(async { tokio::join!(t.get("always"), meanwhile) }).await;
    assert_eq!(first.unwrap(), 401);
    assert_eq!(t.server.counters().token_requests, 1);
}

#[tokio::test]
async fn an_accepted_path_that_is_refused_later_is_refreshed_however_young_the_token_is() {
    let t = Fixture::new().await;
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    // A token born of a refresh, a moment old, and never accepted.
    let login = t.session.access_token().await.unwrap();
    soon(t.session.refused(&login)).await.unwrap();
    t.server.expire_access_tokens();
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    assert_eq!(t.server.counters().refreshes, 2);
}

#[tokio::test]
async fn a_304_shows_that_the_token_was_accepted_and_an_error_does_not() {
    for (path, refreshes) in [("status/304", 2), ("status/500", 1)] {
        let t = Fixture::new().await;
        let status = soon(t.get(path)).await.unwrap();
        assert!(path.ends_with(&status.to_string()));
        let login = t.session.access_token().await.unwrap();
        soon(t.session.refused(&login)).await.unwrap();
        t.server.expire_access_tokens();
        soon(t.get(path)).await.unwrap();
        assert_eq!(t.server.counters().refreshes, refreshes, "{path}");
    }
}

#[tokio::test]
async fn a_young_token_that_nobody_accepted_is_not_refreshed_for_a_new_path() {
    let t = Fixture::new().await;
    let login = t.session.access_token().await.unwrap();
    let young = soon(t.session.refused(&login)).await.unwrap();
    t.server.expire_access_tokens();
    let response = soon(t.send("things")).await.unwrap();
    assert_eq!(response.status(), 401);
    let wait = withheld(&response).expect("marked");
    assert!(wait <= Duration::from_secs(10), "{wait:?}");
    let error = soon(t.session.refused(&young)).await.unwrap_err();
    assert!(error.is_transient());
    assert!(error.retry_after().unwrap() <= Duration::from_secs(10));
    assert_eq!(t.server.counters().token_requests, 1);
    assert_eq!(access_tokens_sent(&t.server), [young.secret()]);
}

#[tokio::test]
async fn the_interval_between_refreshes_can_be_set() {
    let t = Fixture::with(MockServer::start(), no_interval).await;
    let login = t.session.access_token().await.unwrap();
    soon(t.session.refused(&login)).await.unwrap();
    t.server.expire_access_tokens();
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    assert_eq!(t.server.counters().token_requests, 2);
}

#[tokio::test]
async fn tokens_of_a_login_and_of_a_replayed_exchange_are_exempt_from_the_interval() {
    let server = MockServer::builder().grace(Duration::from_secs(10)).start().unwrap();
    let t = Fixture::at(server).await;
    t.server.on_next(Route::Token, 1, Fault::DropAfter);
    let login = t.session.access_token().await.unwrap();
    let replayed = soon(t.session.refused(&login)).await.unwrap();
    assert_eq!(t.server.counters().token_requests, 2);
    soon(t.session.refused(&replayed)).await.unwrap();
    assert_eq!(t.server.counters().token_requests, 3);
    assert_eq!(t.server.counters().reuses, 0);
}

#[tokio::test]
async fn a_success_on_a_refused_path_forgets_the_refusal() {
    let t = Fixture::with(MockServer::start(), no_interval).await;
    t.server.refuse_path("/api/door");
    assert_eq!(soon(t.get("door")).await.unwrap(), 401);
    assert!(withheld(&soon(t.send("door")).await.unwrap()).is_some());
    assert!(withheld(&soon(t.send("challenge")).await.unwrap()).is_some());
    assert_eq!(t.server.counters().refreshes, 1);

    t.server.accept_path("/api/door");
    assert_eq!(soon(t.get("door")).await.unwrap(), 200);
    // Neither this path nor another one is under suspicion any more.
    t.server.expire_access_tokens();
    assert_eq!(soon(t.get("new")).await.unwrap(), 200);
    assert_eq!(t.server.counters().refreshes, 2);
    t.server.expire_access_tokens();
    assert_eq!(soon(t.get("door")).await.unwrap(), 200);
    assert_eq!(t.server.counters().refreshes, 3);
}

#[tokio::test]
async fn a_refusal_holds_back_only_paths_that_were_never_accepted() {
    let t = Fixture::new().await;
    assert_eq!(soon(t.get("known")).await.unwrap(), 200);
    t.server.refuse_path("/api/always");
    assert_eq!(soon(t.get("always")).await.unwrap(), 401);
    t.server.expire_access_tokens();
    assert!(withheld(&soon(t.send("unknown")).await.unwrap()).is_some());
    assert_eq!(t.server.counters().refreshes, 1);
    assert_eq!(soon(t.get("known")).await.unwrap(), 200);
    assert_eq!(t.server.counters().refreshes, 2);
    // The new token is the cure for the other path, too.
    assert_eq!(soon(t.get("unknown")).await.unwrap(), 200);
    assert_eq!(t.server.counters().refreshes, 2);
}

#[tokio::test]
async fn an_accepted_path_that_is_refused_for_good_costs_one_refresh() {
    let t = Fixture::new().await;
    assert_eq!(soon(t.get("door")).await.unwrap(), 200);
    t.server.refuse_path("/api/door");
    for n in 0..100 {
        let response = soon(t.send("door")).await.unwrap();
        assert_eq!(response.status(), 401);
        assert_eq!(withheld(&response).is_some(), n > 0);
    }
    assert_eq!(t.server.counters().token_requests, 1);
}

#[tokio::test]
async fn a_login_forgets_the_budget() {
    let t = Fixture::new().await;
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    spend_budget(&t).await;
    t.server.expire_access_tokens();
    assert_eq!(soon(t.get("things")).await.unwrap(), 401);
    log_in_again(&t).await;
    spend_budget(&t).await;
}

#[tokio::test]
async fn a_login_forgets_the_cooldown() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    let busy = Fault::status(429).header("retry-after", "3600");
    t.server.on_next(Route::Token, 1, busy);
    let error = soon(t.get("things")).await.unwrap_err();
    assert_eq!(found(&error).retry_after(), Some(Duration::from_secs(3600)));
    assert!(t.session.status().await.unwrap().cooldown().is_some());
    log_in_again(&t).await;
    assert_eq!(t.session.status().await.unwrap().cooldown(), None);
    t.server.expire_access_tokens();
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    assert_eq!(t.server.counters().refreshes, 1);
}

#[tokio::test]
async fn a_login_forgets_what_was_refused_and_what_was_accepted() {
    let t = Fixture::new().await;
    assert_eq!(soon(t.get("known")).await.unwrap(), 200);
    t.server.refuse_path("/api/door");
    assert_eq!(soon(t.get("door")).await.unwrap(), 401);
    assert!(withheld(&soon(t.send("door")).await.unwrap()).is_some());
    log_in_again(&t).await;

    // Refused: the next 401 there is worth a refresh again. That one is remembered, too.
    assert_eq!(soon(t.get("door")).await.unwrap(), 401);
    assert_eq!(t.server.counters().refreshes, 2);
    assert!(withheld(&soon(t.send("door")).await.unwrap()).is_some());
    // Accepted: not since the login.
    t.server.expire_access_tokens();
    assert!(withheld(&soon(t.send("known")).await.unwrap()).is_some());
    assert_eq!(t.server.counters().refreshes, 2);
}

#[tokio::test]
async fn a_login_after_the_session_ended_works_and_refreshes() {
    let t = Fixture::new().await;
    t.server.revoke_user("alice");
    assert!(found(&soon(t.get("things")).await.unwrap_err()).is_logged_out());
    log_in_again(&t).await;
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    t.server.expire_access_tokens();
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    assert_eq!(t.server.counters().refreshes, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_requests_on_a_dead_session_make_one_post_and_one_logout() {
    let t = Fixture::new().await;
    let mut events = t.session.events();
    t.server.revoke_user("alice");
    t.server.barrier(Route::Api, 100);
    for result in soon(t.get_all(100)).await {
        let error = result.unwrap_err();
        assert!(found(&error).is_logged_out());
        assert_eq!(found(&error).logout_reason(), Some(LogoutReason::Revoked));
    }
    assert_eq!(t.server.counters().token_requests, 1);
    assert_eq!(t.server.counters().api_requests, 100);

    // What comes later is not sent at all.
    for result in soon(t.get_all(100)).await {
        assert_eq!(found(&result.unwrap_err()).logout_reason(), Some(LogoutReason::Revoked));
    }
    assert_eq!(t.server.counters().token_requests, 1);
    assert_eq!(t.server.counters().api_requests, 100);
    soon(t.session.drain()).await;
    assert_eq!(t.logouts.all(), [LogoutReason::Revoked]);
    assert!(matches!(events.try_next(), Some(Event::LoggedOut(LogoutReason::Revoked))));
    assert!(events.try_next().is_none());
    assert_eq!(t.record(), None);
}

#[tokio::test]
async fn what_no_new_token_cures_leads_to_no_refresh() {
    let challenge = |value: &str| {
        let query: String = form_urlencoded::byte_serialize(value.as_bytes()).collect();
        format!("challenge?value={query}")
    };
    let rows = [
        ("insufficient-scope".to_owned(), 403),
        ("status/403".to_owned(), 403),
        ("status/407".to_owned(), 407),
        ("status/400".to_owned(), 400),
        ("status/404".to_owned(), 404),
        ("status/429".to_owned(), 429),
        ("status/500".to_owned(), 500),
        ("status/503".to_owned(), 503),
        (challenge(r#"Bearer error="invalid_request""#), 401),
        (challenge(r#"Bearer error="insufficient_scope", scope="admin""#), 401),
        (challenge(r#"Basic realm="x", Bearer realm="y", error=insufficient_scope"#), 401),
        (challenge(r#"Bearer error="insufficient_user_authentication""#), 401),
        ("step-up".to_owned(), 401),
    ];
    let t = Fixture::new().await;
    for (n, (path, status)) in rows.iter().enumerate() {
        let response = soon(t.send(path)).await.unwrap();
        assert_eq!(response.status(), *status, "{path}");
        assert_eq!(withheld(&response), None, "{path}");
        assert_eq!(t.server.counters().api_requests, n as u64 + 1, "{path}");
    }
    assert_eq!(t.server.counters().token_requests, 0);
}

#[tokio::test]
async fn a_401_that_says_nothing_known_leads_to_one_refresh_and_one_replay() {
    let challenge = |value: &str| {
        let query: String = form_urlencoded::byte_serialize(value.as_bytes()).collect();
        format!("challenge?value={query}")
    };
    for path in [
        "no-challenge".to_owned(),
        challenge(""),
        challenge("Bearer"),
        challenge(r#"Bearer realm="x""#),
        challenge("Negotiate"),
        challenge(r#"Basic error="insufficient_scope""#),
        challenge(r#"Bearer error="something_new""#),
        challenge(r#"Bearer error="insufficient_scope", Bearer error="invalid_token""#),
        challenge("= , ;\"\\"),
    ] {
        let t = Fixture::new().await;
        assert_eq!(soon(t.get(&path)).await.unwrap(), 401, "{path}");
        assert_eq!(t.server.counters().token_requests, 1, "{path}");
        assert_eq!(t.server.counters().api_requests, 2, "{path}");
    }
}

#[tokio::test]
async fn a_step_up_challenge_comes_back_with_what_it_asks_for() {
    let t = Fixture::new().await;
    let mut events = t.session.events();
    let response = soon(t.send("step-up")).await.unwrap();
    assert_eq!(response.status(), 401);
    let step_up = response.extensions().get::<StepUpRequired>().expect("marked");
    assert_eq!(step_up.acr_values(), Some("high"));
    assert_eq!(step_up.max_age(), None);
    assert!(matches!(events.try_next(), Some(Event::StepUpRequired)));

    let asked = "Bearer error=\"insufficient_user_authentication\", \
                 acr_values=\"gold silver\", max_age=\"300\"";
    let query: String = form_urlencoded::byte_serialize(asked.as_bytes()).collect();
    let response = soon(t.send(&format!("challenge?value={query}"))).await.unwrap();
    let step_up = response.extensions().get::<StepUpRequired>().expect("marked");
    assert_eq!(step_up.acr_values(), Some("gold silver"));
    assert_eq!(step_up.max_age(), Some(Duration::from_secs(300)));
    assert_eq!(t.server.counters().token_requests, 0);
    assert_eq!(t.server.counters().api_requests, 2);
    assert!(t.session.is_logged_in().await.unwrap());
}

#[tokio::test]
async fn a_new_program_refreshes_a_young_token_that_the_server_has_forgotten() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    t.server.expire_access_tokens();
    // It can't know where the token was accepted before it started.
    let session = builder(&t.server).store(t.store.clone()).build().unwrap();
    let request = client(&session).get(t.server.api_url("things"));
    assert_eq!(soon(request.send()).await.unwrap().status(), 200);
    assert_eq!(t.server.counters().refreshes, 2);
}

#[tokio::test]
async fn ids_in_paths_are_refreshed_though_another_endpoint_always_answers_401() {
    let server = MockServer::builder().expires_in(ExpiresIn::Absent).start().unwrap();
    // No token counts as just refreshed.
    let t = Fixture::with(server, |session| session.min_refresh_interval(Duration::ZERO)).await;
    t.server.refuse_path("/api/admin");
    assert_eq!(soon(t.get("admin")).await.unwrap(), 401);
    for n in 0..10 {
        assert_eq!(soon(t.get(&format!("items/{n}"))).await.unwrap(), 200);
    }
    t.server.expire_access_tokens();
    // Paths that were never accepted, of an origin that has accepted the token.
    for n in 10..60 {
        assert_eq!(soon(t.get(&format!("items/{n}"))).await.unwrap(), 200);
    }
    assert_eq!(t.server.counters().refreshes, 2);
    assert!(withheld(&soon(t.send("admin")).await.unwrap()).is_some());
}

/// As above, and the first refresh for such a path fails: it has told nothing.
#[tokio::test]
async fn a_refresh_that_fails_does_not_leave_the_next_path_with_its_401() {
    let server = MockServer::builder().expires_in(ExpiresIn::Absent).start().unwrap();
    let t = Fixture::with(server, |session| session.min_refresh_interval(Duration::ZERO)).await;
    t.server.refuse_path("/api/admin");
    assert_eq!(soon(t.get("admin")).await.unwrap(), 401);
    assert_eq!(soon(t.get("items/1")).await.unwrap(), 200);
    t.server.expire_access_tokens();
    t.server.on_next(Route::Token, 2, Fault::DropBefore);
    let error = soon(t.get("items/2")).await.unwrap_err();
    assert!(found(&error).is_transient());
    tokio::time::sleep(found(&error).retry_after().unwrap()).await;
    assert_eq!(soon(t.get("items/3")).await.unwrap(), 200);
    assert_eq!(t.server.counters().refreshes, 2);
}

/// What is asked for is not there any more, which says nothing against the token.
#[tokio::test]
async fn a_replay_that_finds_nothing_does_not_leave_the_next_path_with_its_401() {
    let server = MockServer::builder().expires_in(ExpiresIn::Absent).start().unwrap();
    let t = Fixture::at(server).await;
    t.server.expire_access_tokens();
    let hold = t.server.hold(Route::Token);
    let gone = async {
        hold.arrived(1).await;
        t.server.on_next(Route::Api, 1, Fault::status(404));
        hold.release();
    };
    let (answer, ()) = soon(async { tokio::join!(t.get("items/1"), gone) }).await;
    assert_eq!(answer.unwrap(), 404);
    assert_eq!(soon(t.get("items/2")).await.unwrap(), 200);
    // The token has lived for a moment, and ends.
    t.server.expire_access_tokens();
    assert_eq!(soon(t.get("items/3")).await.unwrap(), 200);
    assert_eq!(t.server.counters().refreshes, 2);
}

/// A path that refuses each token, and whose replays come too soon to be looked at.
#[tokio::test]
async fn replays_that_are_too_many_say_nothing_of_the_token() {
    let server = MockServer::builder().expires_in(ExpiresIn::Absent).start().unwrap();
    let t = Fixture::at(server).await;
    t.server.refuse_path("/api/door");
    for (n, status) in [429, 503].into_iter().enumerate() {
        let hold = t.server.hold(Route::Token);
        let replay = async {
            hold.arrived(1).await;
            t.server.on_next(Route::Api, 1, Fault::status(status));
            hold.release();
        };
        let (answer, ()) = soon(async { tokio::join!(t.get("door"), replay) }).await;
        assert_eq!(answer.unwrap(), status);
        assert_eq!(soon(t.get("things")).await.unwrap(), 200);
        assert!(withheld(&soon(t.send("door")).await.unwrap()).is_some());
        assert_eq!(t.server.counters().refreshes, n as u64 + 1);
        log_in_again(&t).await;
    }
}

#[tokio::test]
async fn a_late_401_where_a_new_token_was_refused_is_replayed_with_the_new_one() {
    let t = Fixture::new().await;
    t.server.refuse_path("/api/always");
    let answer = Park::after(0);
    let stack = ClientBuilder::new(reqwest::Client::new()).with(t.session.middleware());
    let parking = stack.with(answer.clone()).build();
    let late = tokio::spawn(parking.get(t.server.api_url("always")).send());
    soon(answer.parked.notified()).await;
    assert_eq!(soon(t.get("always")).await.unwrap(), 401);
    answer.open.notify_one();
    let response = soon(late).await.unwrap().unwrap();
    assert_eq!(response.status(), 401);
    assert!(response.extensions().get::<RefreshWithheld>().is_none());
    assert_eq!(t.server.counters().api_requests, 4);
    assert_eq!(t.server.counters().token_requests, 1);
}

#[tokio::test]
async fn a_401_on_a_token_that_ended_on_the_way_is_not_withheld() {
    let server = MockServer::builder().access_ttl(Duration::from_secs(2)).start().unwrap();
    let t = Fixture::at(server).await;
    t.server.refuse_path("/api/admin");
    assert_eq!(soon(t.get("admin")).await.unwrap(), 401);
    let held = t.server.hold(Route::Api);
    let upload = tokio::spawn(t.client.post(t.server.api_url("upload")).body("x").send());
    held.arrived(1).await;
    tokio::time::sleep(Duration::from_millis(2100)).await;
    held.release();
    assert_eq!(soon(upload).await.unwrap().unwrap().status(), 200);
    assert_eq!(t.server.counters().refreshes, 2);
}

#[tokio::test]
async fn a_step_up_challenge_to_the_replay_is_marked_and_holds_nothing_back() {
    let t = Fixture::new().await;
    let mut events = t.session.events();
    t.server.expire_access_tokens();
    let response = soon(t.send("step-up")).await.unwrap();
    assert_eq!(response.status(), 401);
    let step_up = response.extensions().get::<StepUpRequired>().unwrap();
    assert_eq!(step_up.acr_values(), Some("high"));
    assert!(matches!(events.next().await, Some(Event::Refreshed)));
    assert!(matches!(events.next().await, Some(Event::StepUpRequired)));
    t.server.expire_access_tokens();
    assert_eq!(soon(t.get("never-before")).await.unwrap(), 200);
}

/// Five refreshes because of 401s on tokens that should have been good.
async fn spend_budget(t: &Fixture) {
    let before = t.server.counters().refreshes;
    for n in 1..=5 {
        t.server.expire_access_tokens();
        assert_eq!(soon(t.get("things")).await.unwrap(), 200);
        assert_eq!(t.server.counters().refreshes, before + n);
    }
}

async fn log_in_again(t: &Fixture) {
    let issued = t.server.log_in("alice");
    soon(t.session.log_in(tokens(&issued))).await.unwrap();
}

/// A GET of each path, all at the same time.
async fn send_all(t: &Fixture, paths: Vec<String>) -> Vec<Response> {
    let requests = paths.iter().map(|path| t.client.get(t.server.api_url(path)));
    join_all(requests.map(|request| async move { request.send().await.unwrap() })).await
}

/// Inside the session's middleware: parks one of a request's sends, or its answer.
#[derive(Clone)]
struct Park {
    send: usize,
    answer: bool,
    sends: Arc<AtomicUsize>,
    parked: Arc<Notify>,
    open: Arc<Notify>,
}

impl Park {
    fn before(send: usize) -> Self {
        let (sends, parked, open) = Default::default();
        Self { send, answer: false, sends, parked, open }
    }

    fn after(send: usize) -> Self {
        Self { answer: true, ..Self::before(send) }
    }
}

#[async_trait::async_trait]
impl Middleware for Park {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let parked = self.sends.fetch_add(1, Ordering::SeqCst) == self.send;
        if parked && !self.answer {
            self.parked.notify_one();
            self.open.notified().await;
        }
        let response = next.run(request, extensions).await;
        if parked && self.answer {
            self.parked.notify_one();
            self.open.notified().await;
        }
        response
    }
}

fn withheld(response: &Response) -> Option<Duration> {
    response.extensions().get().map(RefreshWithheld::retry_after)
}

fn no_interval(builder: SessionBuilder) -> SessionBuilder {
    builder.min_refresh_interval(Duration::ZERO)
}

const BUDGET_WINDOW: Duration = Duration::from_secs(30);
