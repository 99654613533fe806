//! One refresh for everybody who needs it.

mod support;

use mock_server::Route;
use support::{Fixture, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn six_parallel_401s_make_one_refresh_and_each_request_is_sent_exactly_twice() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    t.server.barrier(Route::Api, 6);
    for status in soon(t.get_all(6)).await {
        assert_eq!(status.unwrap(), 200);
    }
    let counters = t.server.counters();
    assert_eq!(counters.refreshes, 1);
    assert_eq!(counters.reuses, 0);
    assert_eq!(counters.api_unauthorized, 6);
    assert_eq!(counters.api_requests, 12);
}
