//! A wait that is measured in the waiter's own running time.

use std::pin::pin;
use std::time::Duration;

use tokio::time;

/// What `future` gives within `limit`, or `None`.
///
/// Time in which this process was stopped or the machine slept doesn't count: the limit is spent
/// in ticks, a tick costs no more than [`TICK`] however long it took, and the future is asked
/// before the clock. So an answer that came in the meantime is taken on waking, where a plain
/// deadline would have passed.
pub(crate) async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = limit;
    loop {
        let tick = left.min(TICK);
        // `timeout` polls the future first.
        if let Ok(output) = time::timeout(tick, &mut future).await {
            return Some(output);
        }
        left -= tick;
        if left.is_zero() {
            return None;
        }
    }
}

/// Short beside every limit here, so that a sleep costs next to nothing of it; long enough that
/// waking up for it costs nothing either.
pub(crate) const TICK: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test(start_paused = true)]
    async fn the_limit_is_exact() {
        let start = time::Instant::now();
        let limit = Duration::from_millis(1100);
        assert_eq!(within(limit, std::future::pending::<()>()).await, None);
        assert_eq!(start.elapsed(), limit);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_came_during_a_suspension_is_taken_on_waking() {
        let (reply, answer) = oneshot::channel();
        let waiter = tokio::spawn(within(Duration::from_secs(30), answer));
        tokio::task::yield_now().await;
        // The machine sleeps for an hour; the answer waits in the socket.
        time::advance(Duration::from_secs(3600)).await;
        reply.send(7).expect("still waiting");
        assert_eq!(waiter.await.expect("no panic"), Some(Ok(7)));
    }
}
