//! What is known of a session: its events, its status, its token for other protocols.

mod support;

use std::time::Duration;

use mock_server::MockServer;
use reqwest_reauth::{AccessToken, LogoutReason, MemoryStore, Record, TokenResponse, TokenStore};
use support::steps::{names, user};
use support::{
    Fixture, access_tokens_sent, builder, client, join_all, refresh_tokens_sent, soon, tokens,
    tokens_without_expiry,
};

#[tokio::test]
async fn the_events_tell_the_story_in_order() {
    let server = MockServer::start();
    let session = builder(&server).store(MemoryStore::new()).build().unwrap();
    let mut events = session.events();
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
    server.expire_access_tokens();
    assert_eq!(user(&session, &server).await, "alice");
    soon(session.log_out()).await.unwrap();
    session.log_in(tokens(&server.log_in("bob"))).await.unwrap();
    server.revoke_user("bob");
    soon(client(&session).get(server.api_url("x")).send()).await.unwrap_err();
    assert_eq!(
        names(&mut events),
        ["logged in", "refreshed", "logged out", "logged in", "logged out"]
    );
    drop(session);
    assert!(soon(events.next()).await.is_none());
}

#[tokio::test]
async fn a_login_without_a_refresh_token_ends_with_its_access_token() {
    let server = MockServer::start();
    let session = builder(&server).store(MemoryStore::new()).build().unwrap();
    let issued = server.log_in("alice");
    let given = || TokenResponse::new(&issued.access_token);
    let over = || given().expires_in(Duration::from_millis(1));
    for (given, goes_on) in [
        (given(), true),
        (given().expires_in(Duration::from_secs(60)), true),
        (over(), false),
        (over().refresh_token(&issued.refresh_token), true),
    ] {
        session.log_in(given).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(session.is_logged_in().await.unwrap(), goes_on);
        let status = session.status().await.unwrap();
        assert_eq!(status.is_logged_in(), goes_on);
        assert_eq!(status.to_string().contains("no refresh token"), !status.has_refresh_token());
    }
}

#[tokio::test]
async fn the_status_is_a_few_lines_for_a_person() {
    let server = MockServer::start();
    let session = builder(&server).store(MemoryStore::new()).account("work").build().unwrap();
    let status = session.status().await.unwrap();
    assert!(!status.is_logged_in());
    assert_eq!(status.account(), "work");
    assert_eq!(status.logout_reason(), None);
    let common = format!(
        "token endpoint and client: {} test\ntokens are kept in the memory of this process",
        server.token_url()
    );
    assert_eq!(status.to_string(), format!("not logged in as \"work\"\n{common}"));

    let given = tokens_without_expiry(&server.log_in("alice"));
    session.log_in(given).await.unwrap();
    server.expire_access_tokens();
    assert_eq!(user(&session, &server).await, "alice");
    let status = session.status().await.unwrap();
    assert!(status.is_logged_in());
    assert_eq!(status.refreshes(), 1);
    let left = status.expires_at().unwrap().duration_since(status.received_at().unwrap());
    assert_eq!(left.unwrap(), Duration::from_secs(300));
    let text = status.to_string();
    let (head, tail) = text.rsplit_once('\n').unwrap();
    let (head, by) = head.rsplit_once('\n').unwrap();
    assert_eq!(head, format!("logged in as \"work\"\n{common}\nrefreshes since the login: 1"));
    let program = format!("(process {})", std::process::id());
    let (age, by) = by.strip_prefix("last refreshed ").unwrap().split_once(" s ago by ").unwrap();
    assert!(age.parse::<u64>().unwrap() < 60 && by.ends_with(&program), "{age} {by}");
    let seconds = tail.strip_prefix("access token: ").unwrap().strip_suffix(" s left").unwrap();
    assert!(seconds.parse::<u64>().unwrap() < 300, "{tail}");

    soon(session.log_out()).await.unwrap();
    let status = session.status().await.unwrap();
    assert_eq!(status.logout_reason(), Some(LogoutReason::Requested));
    assert_eq!(status.to_string(), format!("logged out as \"work\": as requested\n{common}"));
}

#[tokio::test]
async fn the_status_tells_of_a_token_that_is_over_and_of_a_clock_that_was_set_back() {
    let (server, store) = (MockServer::start(), MemoryStore::new());
    let session = builder(&server).store(store.clone()).build().unwrap();
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
    let record = store.load().unwrap().unwrap();
    let record: serde_json::Value = serde_json::from_slice(record.as_bytes()).unwrap();
    let status = async |by: i64| {
        let (mut record, store) = (record.clone(), MemoryStore::new());
        for time in ["received_at", "expires_at"] {
            record[time] = (record[time].as_i64().unwrap() + by).into();
        }
        store.save(&Record::from_bytes(record.to_string().as_bytes())).unwrap();
        let session = builder(&server).store(store).build().unwrap();
        session.status().await.unwrap().to_string()
    };
    let hour = 3_600_000;
    let over = status(-hour).await;
    assert!(over.ends_with("\naccess token: expired"), "{over}");
    let early = status(hour).await;
    assert!(early.contains("logged in in the future by this clock by "), "{early}");
}

#[tokio::test]
async fn a_token_for_other_protocols_is_refreshed_when_it_is_refused() {
    let t = Fixture::new().await;
    let first = t.session.access_token().await.unwrap();
    assert_eq!(first.secret(), t.issued.access_token);
    assert!(first.expires_at().is_some());
    let second = soon(t.session.refused(&first)).await.unwrap();
    assert_ne!(second.secret(), first.secret());
    assert_eq!(t.session.access_token().await.unwrap().secret(), second.secret());
    assert_eq!(t.server.counters().refreshes, 1);

    // The older one is refused late: what is current will do.
    let current = soon(t.session.refused(&first)).await.unwrap();
    assert_eq!(current.secret(), second.secret());
    assert_eq!(t.server.counters().token_requests, 1);
    // And requests have it too.
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    assert_eq!(access_tokens_sent(&t.server), [second.secret()]);
}

#[tokio::test]
async fn a_token_that_is_refused_over_and_over_leads_to_no_refresh_each() {
    let t = Fixture::new().await;
    let first = t.session.access_token().await.unwrap();
    let second = soon(t.session.refused(&first)).await.unwrap();
    for _ in 0..10 {
        let error = soon(t.session.refused(&second)).await.unwrap_err();
        assert!(error.is_transient() && error.retry_after().is_some());
    }
    assert_eq!(t.server.counters().token_requests, 1);
}

#[tokio::test]
async fn a_token_of_a_login_that_ended_is_logged_out_when_refused() {
    let t = Fixture::new().await;
    let alices = t.session.access_token().await.unwrap();
    soon(t.session.log_in(tokens(&t.server.log_in("bob")))).await.unwrap();
    let error = soon(t.session.refused(&alices)).await.unwrap_err();
    assert!(error.is_logged_out());
    assert_eq!(t.server.counters().token_requests, 0);
}

#[tokio::test]
async fn an_expired_token_is_refreshed_before_it_is_handed_out() {
    let t = Fixture::expired(MockServer::start()).await;
    let tokens = soon(join_all((0..10).map(|_| {
        let session = t.session.clone();
        async move { session.access_token().await.unwrap() }
    })))
    .await;
    let secrets: Vec<_> = tokens.iter().map(AccessToken::secret).collect();
    assert_eq!(secrets, vec![secrets[0]; 10]);
    assert_ne!(secrets[0], t.issued.access_token);
    assert_eq!(refresh_tokens_sent(&t.server), [t.issued.refresh_token.as_str()]);
}
