//! One refresh token for new tokens: sent once, and once more where its answer is lost.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use crate::endpoint::{Outcome, RefreshError};
use crate::refresh::within;
use crate::session::Core;
use crate::token::{RefreshToken, TokenResponse};

/// Sends the refresh token, and once more if the answer is lost: at once and under the same
/// lock, since a server that lets a spent token be repeated does so for a short while only.
/// Whether it was sent twice is the second half of the answer.
pub(super) async fn exchange(
    core: &Core,
    http: &reqwest::Client,
    token: &RefreshToken,
) -> (Answer, bool) {
    let attempt = async || -> Answer {
        let response = core.endpoint.refresh(http, token).await?;
        match response.check() {
            // A rotated refresh token is worth keeping, whatever came with it.
            Err(why) if response.refresh_token.is_none() => Err(RefreshError::unexpected(why)),
            _ => Ok(response),
        }
    };
    let mut first = pin!(attempt());
    let patience = patience(core.endpoint.reuse_grace());
    match within(patience, &mut first).await {
        Some(Err(error)) if error.outcome() == Outcome::NoAnswer => {
            let second = in_time(REPLAY, attempt()).await;
            // What the server has asked for holds though the second answer is lost too.
            (second.map_err(|second| second.or_with_wait(error.retry_after())), true)
        }
        Some(result) => (result, false),
        // The first answer may still come, and is as good.
        None => {
            let first = pin!(in_time(EXCHANGE.saturating_sub(patience), first));
            either(first, pin!(in_time(REPLAY, attempt()))).await
        }
    }
}

/// How long the first answer is waited for before the token is sent once more: as long as that
/// still helps. A window too short for that is none.
fn patience(reuse_grace: Option<Duration>) -> Duration {
    let half = reuse_grace.map(|grace| grace / 2).filter(|half| *half >= PATIENCE_MIN);
    half.map_or(EXCHANGE, |half| half.min(EXCHANGE))
}

/// The answer to the first request, or to the second, which asks the same: whichever brings
/// tokens, since one that is refused may be so because the other one was not. Where neither does,
/// what the server said for good counts most, and what it may have done next. Whether the second
/// was sent at all is the second half of the answer.
async fn either(
    mut first: Pin<&mut impl Future<Output = Answer>>,
    mut second: Pin<&mut impl Future<Output = Answer>>,
) -> (Answer, bool) {
    let mut sent_twice = false;
    let earlier = poll_fn(|context| match first.as_mut().poll(context) {
        Poll::Ready(answer) => Poll::Ready((answer, true)),
        Poll::Pending => {
            sent_twice = true;
            second.as_mut().poll(context).map(|answer| (answer, false))
        }
    });
    let (error, other) = match earlier.await {
        (Ok(response), _) => return (Ok(response), sent_twice),
        // It came just now: what was answered is not sent again.
        (Err(error), true) if !sent_twice && error.outcome() != Outcome::NoAnswer => {
            return (Err(error), false);
        }
        (Err(error), true) => (error, second.await),
        (Err(error), false) => (error, first.await),
    };
    let heavier = |other: RefreshError| {
        let wait = error.retry_after().or_else(|| other.retry_after());
        let heavier = if weight(&other) > weight(&error) { other } else { error };
        heavier.or_with_wait(wait)
    };
    (other.map_err(heavier), true)
}

fn weight(error: &RefreshError) -> u8 {
    match error.outcome() {
        Outcome::Rejected => 2,
        Outcome::NoAnswer | Outcome::Unreadable | Outcome::Unexpected => 1,
        Outcome::NotSent | Outcome::Busy | Outcome::Misconfigured => 0,
    }
}

async fn in_time(limit: Duration, answer: impl Future<Output = Answer>) -> Answer {
    within(limit, answer).await.unwrap_or_else(|| {
        Err(RefreshError::no_answer("the token endpoint gave no answer within the time allowed"))
    })
}

type Answer = Result<TokenResponse, RefreshError>;

/// A server that is slow for a moment must not be asked twice for that.
const PATIENCE_MIN: Duration = Duration::from_secs(1);

/// Giving up on an answer may cost the session, and real servers have taken 20 s.
const EXCHANGE: Duration = Duration::from_secs(30);

/// The replay of a lost exchange: the server was reachable a moment ago.
const REPLAY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer that takes so many turns.
    async fn answer(turns: usize, answer: Answer) -> Answer {
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        answer
    }

    #[tokio::test]
    async fn of_two_answers_the_one_with_tokens_counts_and_then_the_last_word() {
        let tokens = || Ok(TokenResponse::new("at"));
        let rejected = || Err(RefreshError::rejected("invalid_grant"));
        let busy = || Err(RefreshError::busy("429", None));
        let lost = || Err(RefreshError::no_answer("lost"));
        // Which comes first, and which of the two it is.
        for (one, other) in [(1, 2), (2, 1)] {
            let both = async |first: Answer, second: Answer| {
                let (first, second) = (pin!(answer(one, first)), pin!(answer(other, second)));
                let (answer, sent_twice) = either(first, second).await;
                assert!(sent_twice);
                answer.map(|_| ()).map_err(|error| error.outcome())
            };
            assert_eq!(both(tokens(), rejected()).await, Ok(()));
            assert_eq!(both(busy(), tokens()).await, Ok(()));
            assert_eq!(both(rejected(), busy()).await, Err(Outcome::Rejected));
            assert_eq!(both(lost(), rejected()).await, Err(Outcome::Rejected));
            assert_eq!(both(lost(), busy()).await, Err(Outcome::NoAnswer));
            assert_eq!(both(busy(), lost()).await, Err(Outcome::NoAnswer));
        }
    }

    #[tokio::test]
    async fn of_two_failures_that_weigh_the_same_the_earlier_one_is_told() {
        let failed = |message: &'static str| Err(RefreshError::no_answer(message));
        for (one, other, earlier) in [(1, 2, "first"), (2, 1, "second")] {
            let (first, second) = (answer(one, failed("first")), answer(other, failed("second")));
            let (answer, _) = either(pin!(first), pin!(second)).await;
            assert_eq!(answer.unwrap_err().to_string(), earlier);
        }
    }

    #[tokio::test]
    async fn what_either_answer_asks_to_wait_is_waited() {
        let wait = Some(Duration::from_secs(7));
        let lost = |wait| Err(RefreshError::no_answer("lost").or_with_wait(wait));
        for (first, second) in [(wait, None), (None, wait)] {
            let (first, second) = (answer(1, lost(first)), answer(2, lost(second)));
            let (answer, _) = either(pin!(first), pin!(second)).await;
            assert_eq!(answer.unwrap_err().retry_after(), wait);
        }
    }

    #[tokio::test]
    async fn what_was_answered_just_in_time_is_not_sent_again() {
        let rejected = answer(0, Err(RefreshError::rejected("invalid_grant")));
        let never = async { unreachable!("it must not be sent") };
        let (answer, sent_twice) = either(pin!(rejected), pin!(never)).await;
        assert_eq!(answer.unwrap_err().outcome(), Outcome::Rejected);
        assert!(!sent_twice);
    }

    #[test]
    fn a_grace_window_too_short_to_wait_in_is_none() {
        let seconds = Duration::from_secs;
        assert_eq!(patience(None), EXCHANGE);
        assert_eq!(patience(Some(Duration::ZERO)), EXCHANGE);
        assert_eq!(patience(Some(Duration::from_millis(1900))), EXCHANGE);
        assert_eq!(patience(Some(seconds(2))), seconds(1));
        assert_eq!(patience(Some(seconds(20))), seconds(10));
        assert_eq!(patience(Some(seconds(600))), EXCHANGE);
    }
}
