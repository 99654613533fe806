//! Beside reqwest-retry, outside and inside of it: each does its own work, and no more.
//!
//! Outside (`.with(retry).with(reauth)`), each attempt of the retry is a request of its own to
//! the session. Inside (`.with(reauth).with(retry)`), each of the session's two sends is tried
//! again by itself. Both count the same sends; outside, a retry has the newest token.

mod support;

use std::time::Duration;

use anyhow::Context;
use mock_server::{Fault, MockServer, Route};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_reauth::{Error, LogoutReason, RefreshWithheld};
use reqwest_retry::policies::ExponentialBackoff;
use reqwest_retry::{
    DefaultRetryableStrategy, RetryTransientMiddleware, Retryable, RetryableStrategy,
};
use support::{Fixture, access_tokens_sent, found, join_all, soon, statuses};

#[tokio::test]
async fn a_503_of_the_api_is_retried_and_no_token_is_refreshed() {
    for order in BOTH {
        let t = Fixture::new().await;
        t.server.on_next(Route::Api, 3, Fault::status(503));
        assert_eq!(soon(order.get(&t)).await.unwrap(), 200, "{order:?}");
        assert_eq!(sends(&t), (4, 0), "{order:?}");
    }
}

#[tokio::test]
async fn a_503_that_stays_is_the_callers_after_three_retries() {
    for order in BOTH {
        let t = Fixture::new().await;
        t.server.on_next(Route::Api, 100, Fault::status(503));
        assert_eq!(soon(order.get(&t)).await.unwrap(), 503, "{order:?}");
        assert_eq!(sends(&t), (4, 0), "{order:?}");
    }
}

#[tokio::test]
async fn a_lost_connection_to_the_api_is_retried_and_no_token_is_refreshed() {
    for order in BOTH {
        let t = Fixture::new().await;
        t.server.on_next(Route::Api, 2, Fault::DropBefore);
        assert_eq!(soon(order.get(&t)).await.unwrap(), 200, "{order:?}");
        assert_eq!(sends(&t), (3, 0), "{order:?}");
    }
}

#[tokio::test]
async fn a_stale_token_costs_one_refresh_and_two_sends() {
    for order in BOTH {
        let t = Fixture::new().await;
        t.server.expire_access_tokens();
        assert_eq!(soon(order.get(&t)).await.unwrap(), 200, "{order:?}");
        assert_eq!(sends(&t), (2, 1), "{order:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_requests_on_a_stale_token_cost_one_refresh_and_two_sends_each() {
    for order in BOTH {
        let t = Fixture::new().await;
        t.server.expire_access_tokens();
        t.server.barrier(Route::Api, 100);
        assert_eq!(statuses(soon(order.get_all(&t, 100)).await), [200; 100], "{order:?}");
        assert_eq!(sends(&t), (200, 1), "{order:?}");
    }
}

#[tokio::test]
async fn a_503_of_the_replay_is_retried_with_the_new_token() {
    for order in BOTH {
        let t = Fixture::new().await;
        t.server.expire_access_tokens();
        let hold = t.server.hold(Route::Token);
        let fault = async {
            hold.arrived(1).await;
            t.server.on_next(Route::Api, 2, Fault::status(503));
            hold.release();
        };
        let (status, ()) = soon(async { tokio::join!(order.get(&t), fault) }).await;
        assert_eq!(status.unwrap(), 200, "{order:?}");
        assert_eq!(sends(&t), (4, 1), "{order:?}");
        let sent = access_tokens_sent(&t.server);
        assert_eq!(sent[0], t.issued.access_token, "{order:?}");
        assert!(!sent[1..].contains(&t.issued.access_token), "{order:?}");
    }
}

#[tokio::test]
async fn a_token_that_ends_between_two_retries_costs_one_refresh() {
    for order in BOTH {
        let t = Fixture::new().await;
        t.server.on_next(Route::Api, 1, Fault::status(503));
        t.server.expire_access_tokens();
        assert_eq!(soon(order.get(&t)).await.unwrap(), 200, "{order:?}");
        // 503, 401, 200
        assert_eq!(sends(&t), (3, 1), "{order:?}");
    }
}

#[tokio::test]
async fn a_refresh_that_fails_for_now_is_not_retried_and_its_error_is_found() {
    let busy = Fault::status(429).header("retry-after", "60");
    for (fault, posts) in
        [(busy, 1), (Fault::status(403), 1), (Fault::status(503), 2), (Fault::DropBefore, 2)]
    {
        for order in BOTH {
            let t = Fixture::new().await;
            t.server.expire_access_tokens();
            t.server.on_next(Route::Token, 100, fault.clone());
            let error = soon(order.get(&t)).await.unwrap_err();
            let error = found(&error);
            assert!(error.is_transient(), "{order:?} {fault:?}");
            assert!(error.retry_after().is_some(), "{order:?} {fault:?}");
            assert_eq!(sends(&t), (1, posts), "{order:?} {fault:?}");
        }
    }
}

#[tokio::test]
async fn an_expired_token_that_cannot_be_refreshed_is_sent_nowhere() {
    for order in BOTH {
        let t = Fixture::expired(MockServer::start()).await;
        t.server.on_next(Route::Token, 100, Fault::status(429).header("retry-after", "60"));
        for _ in 0..10 {
            let error = soon(order.get(&t)).await.unwrap_err();
            assert!(found(&error).is_transient(), "{order:?}");
        }
        assert_eq!(sends(&t), (0, 1), "{order:?}");
    }
}

#[tokio::test]
async fn a_strategy_that_retries_our_transient_errors_makes_no_more_posts_in_the_cooldown() {
    let t = Fixture::expired(MockServer::start()).await;
    t.server.on_next(Route::Token, 100, Fault::status(429).header("retry-after", "60"));
    let retry = RetryTransientMiddleware::new_with_policy_and_strategy(policy(), RetryOurs);
    let client =
        ClientBuilder::new(reqwest::Client::new()).with(retry).with(t.session.middleware()).build();
    let error = soon(client.get(t.server.api_url("things")).send()).await.unwrap_err();
    assert!(error.to_string().contains("3 retries"), "{error}");
    let error = found(&error);
    assert!(error.is_transient());
    assert!(error.retry_after().unwrap() <= Duration::from_secs(60));
    assert_eq!(sends(&t), (0, 1));
}

#[tokio::test]
async fn a_401_that_stays_is_sent_twice_then_once_and_never_retried() {
    for order in BOTH {
        let t = Fixture::new().await;
        t.server.refuse_path("/api/things");
        assert_eq!(soon(order.get(&t)).await.unwrap(), 401, "{order:?}");
        assert_eq!(sends(&t), (2, 1), "{order:?}");
        let client = order.client(&t);
        for n in 1..=20 {
            let request = client.get(t.server.api_url("things"));
            let response = soon(request.send()).await.unwrap();
            assert_eq!(response.status(), 401, "{order:?}");
            assert!(response.extensions().get::<RefreshWithheld>().is_some(), "{order:?}");
            assert_eq!(sends(&t), (2 + n, 1), "{order:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_dead_session_costs_one_post_and_is_not_retried() {
    for order in BOTH {
        let t = Fixture::new().await;
        t.server.revoke_user("alice");
        t.server.barrier(Route::Api, 100);
        for result in soon(order.get_all(&t, 100)).await {
            let error = result.unwrap_err();
            assert!(found(&error).is_logged_out(), "{order:?}");
            assert_eq!(found(&error).logout_reason(), Some(LogoutReason::Revoked), "{order:?}");
        }
        assert_eq!(sends(&t), (100, 1), "{order:?}");
        for result in soon(order.get_all(&t, 100)).await {
            assert!(found(&result.unwrap_err()).is_logged_out(), "{order:?}");
        }
        assert_eq!(sends(&t), (100, 1), "{order:?}");
        soon(t.session.drain()).await;
        assert_eq!(t.logouts.all(), [LogoutReason::Revoked], "{order:?}");
    }
}

#[tokio::test]
async fn an_error_is_found_behind_retry_and_anyhow_context() {
    async fn load(client: &ClientWithMiddleware, url: String) -> anyhow::Result<u16> {
        let response = client.get(url).send().await.context("loading the things")?;
        Ok(response.status().as_u16())
    }
    for order in BOTH {
        let t = Fixture::new().await;
        t.server.revoke_user("alice");
        let client = order.client(&t);
        let loading = load(&client, t.server.api_url("things"));
        let error = soon(loading).await.context("at the start").unwrap_err();
        let ours = Error::find(error.as_ref()).expect("found");
        assert_eq!(ours.logout_reason(), Some(LogoutReason::Revoked), "{order:?}");

        let boxed: Box<dyn std::error::Error + Send + Sync> = error.into();
        assert!(Error::find(boxed.as_ref()).expect("found").is_logged_out(), "{order:?}");
    }
}

/// Where reqwest-retry is, seen from the session's middleware.
#[derive(Clone, Copy, Debug)]
enum Retry {
    Outside,
    Inside,
}

const BOTH: [Retry; 2] = [Retry::Outside, Retry::Inside];

impl Retry {
    fn client(self, t: &Fixture) -> ClientWithMiddleware {
        let retry = RetryTransientMiddleware::new_with_policy(policy());
        let (plain, reauth) = (ClientBuilder::new(reqwest::Client::new()), t.session.middleware());
        match self {
            Self::Outside => plain.with(retry).with(reauth),
            Self::Inside => plain.with(reauth).with(retry),
        }
        .build()
    }

    async fn get(self, t: &Fixture) -> Result<u16, reqwest_middleware::Error> {
        let response = self.client(t).get(t.server.api_url("things")).send().await?;
        Ok(response.status().as_u16())
    }

    async fn get_all(
        self,
        t: &Fixture,
        count: usize,
    ) -> Vec<Result<u16, reqwest_middleware::Error>> {
        let client = self.client(t);
        let requests = (0..count).map(|n| client.get(t.server.api_url(&format!("things/{n}"))));
        join_all(requests.map(|request| async move {
            request.send().await.map(|response| response.status().as_u16())
        }))
        .await
    }
}

/// Retries what the crate calls transient, and what reqwest-retry does.
struct RetryOurs;

impl RetryableStrategy for RetryOurs {
    fn handle(
        &self,
        result: &Result<reqwest::Response, reqwest_middleware::Error>,
    ) -> Option<Retryable> {
        match result {
            Err(e) if Error::find(e).is_some_and(Error::is_transient) => Some(Retryable::Transient),
            other => DefaultRetryableStrategy.handle(other),
        }
    }
}

fn policy() -> ExponentialBackoff {
    let (min, max) = (Duration::from_millis(1), Duration::from_millis(5));
    ExponentialBackoff::builder().retry_bounds(min, max).build_with_max_retries(3)
}

/// How many requests the API and the token endpoint have seen.
fn sends(t: &Fixture) -> (u64, u64) {
    let counters = t.server.counters();
    (counters.api_requests, counters.token_requests)
}
