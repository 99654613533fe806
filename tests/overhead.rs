//! What the middleware costs a request with a fresh token: so many allocations, and no call to the
//! operating system.

#[path = "support/layers.rs"]
mod layers;
mod support;

use std::process::{Command, Stdio};

use allocation_counter::measure;
use http::Extensions;
use layers::{LAYERS, Layer, Subject};
use reqwest::{Request, Response};
use reqwest_middleware::{ClientBuilder, Middleware, Next, Result};
use reqwest_reauth::ReauthMiddleware;
use tokio::runtime::{Builder, Runtime};

#[test]
fn a_request_with_a_fresh_token_costs_seven_allocations_as_with_a_constant_header_and_a_clone() {
    let of = |layer| {
        let (runtime, count) = (runtime(), 100);
        let subject = runtime.block_on(Subject::new(layer));
        let counted = measure(|| runtime.block_on(subject.send(count)));
        assert_eq!(counted.count_current, 0, "{layer:?} keeps something of each");
        assert_eq!(counted.count_total % count as u64, 0, "{layer:?}: each request alike");
        counted.count_total / count as u64
    };
    let bare = of(Layer::None);
    let more = LAYERS.map(|(layer, _)| of(layer) - bare);
    assert_eq!(more, [0, 1, 3, 7, 11, 7]);
}

/// Up to 1,032 bytes glibc takes from what this thread has given back, and more takes it some two
/// hundred instructions longer.
#[tokio::test]
async fn what_a_request_is_while_it_is_sent_takes_the_short_way_through_the_allocator() {
    struct Measured(ReauthMiddleware);

    #[async_trait::async_trait]
    impl Middleware for Measured {
        async fn handle(
            &self,
            request: Request,
            extensions: &mut Extensions,
            next: Next<'_>,
        ) -> Result<Response> {
            let future = self.0.handle(request, extensions, next);
            let size = size_of_val(&*future);
            assert!(size <= 1032, "{size} bytes");
            future.await
        }
    }

    let t = support::Fixture::new().await;
    let measured = Measured(t.session.middleware());
    let client = ClientBuilder::new(reqwest::Client::new()).with(measured).build();
    let response = support::soon(client.get(t.server.api_url("things")).send()).await.unwrap();
    assert_eq!(response.status(), 200);
}

#[cfg(target_os = "linux")]
#[test]
fn a_thousand_requests_with_a_fresh_token_make_no_system_call() {
    for layer in [Layer::None, Layer::Reauth] {
        assert_eq!(system_calls(layer), [""; 0], "{layer:?}");
    }
}

/// Those of the thread that sends, between its first request and its last, by strace.
#[cfg(target_os = "linux")]
fn system_calls(layer: Layer) -> Vec<String> {
    let logs = tempfile::tempdir().unwrap();
    let status = Command::new("strace")
        // A file for each thread.
        .args(["-ff", "--quiet=all", "--string-limit=64", "--output"])
        .arg(logs.path().join("thread"))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "sends_a_thousand_if_it_is_told_to"])
        .env(LAYER, format!("{layer:?}"))
        .stdout(Stdio::null())
        .status()
        .expect("strace: install it");
    assert!(status.success());
    let logs = std::fs::read_dir(logs.path()).unwrap();
    let mut logs = logs.map(|log| std::fs::read_to_string(log.unwrap().path()).unwrap());
    let log = logs.find(|log| log.contains(BEGIN)).expect("the thread that sends");
    let calls: Vec<_> = log.lines().collect();
    let mark = |path| calls.iter().position(|call| call.contains(path)).expect("a mark");
    calls[mark(BEGIN) + 1..mark(END)].iter().map(|call| (*call).to_owned()).collect()
}

/// By itself: none.
#[test]
fn sends_a_thousand_if_it_is_told_to() {
    let Ok(told) = std::env::var(LAYER) else {
        return;
    };
    let (layer, _) = LAYERS.into_iter().find(|(layer, _)| format!("{layer:?}") == told).unwrap();
    runtime().block_on(async {
        let subject = Subject::new(layer).await;
        for mark in [BEGIN, END] {
            assert!(std::fs::metadata(mark).is_err(), "it only has to be asked for");
            subject.send(if mark == BEGIN { 1000 } else { 0 }).await;
        }
    });
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

const LAYER: &str = "OVERHEAD_LAYER";
const BEGIN: &str = "/the-first-request-comes-after-this";
const END: &str = "/the-last-request-came-before-this";
