//! Refreshing ahead without any traffic, for programs that are open all day.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time;

use crate::error::Error;
use crate::session::{Core, Session};
use crate::token::{Moment, Tokens};

/// Keeps a session's tokens fresh until it is dropped, from
/// [`Session::keep_alive`](crate::Session::keep_alive). Keeps the session open, too.
#[must_use = "dropping it ends the keep-alive"]
pub struct KeepAlive {
    session: Session,
    _stop: oneshot::Sender<()>,
}

impl KeepAlive {
    pub(crate) fn start(session: Session) -> Result<Self, Error> {
        let core = Arc::clone(session.core());
        let (stop, mut stopped) = oneshot::channel();
        session.core().thread.spawn(async move {
            let mut last = None;
            loop {
                core.look_for_a_login().await;
                let pause = core.keep_alive_at(Moment::now(), &mut last).min(TICK);
                // Ends when the handle is dropped.
                if time::timeout(pause, &mut stopped).await.is_ok() {
                    return;
                }
            }
        })?;
        Ok(Self { session, _stop: stop })
    }
}

impl fmt::Debug for KeepAlive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeepAlive").field("session", &self.session).finish()
    }
}

impl Core {
    /// Refreshes in the background what is due, and says when to look again. `last` is when it did
    /// so before.
    fn keep_alive_at(self: &Arc<Self>, now: Moment, last: &mut Option<Instant>) -> Duration {
        let Some(tokens) = self.state.tokens() else {
            return TICK;
        };
        let Some(wait) = due_in(&tokens, now) else {
            return TICK;
        };
        let cooling = self.storm.cooling_at(now, &tokens).and_then(|e| e.retry_after());
        let since = last.map(|last| now.mono.saturating_duration_since(last));
        let rest =
            since.map_or(Duration::ZERO, |since| self.storm.interval().saturating_sub(since));
        let wait = wait.max(rest).max(cooling.unwrap_or_default());
        if !wait.is_zero() {
            return wait;
        }
        *last = Some(now.mono);
        self.refresh_ahead(&tokens);
        AGAIN
    }
}

/// How long until these tokens should be replaced: before the access token ends, and before the
/// refresh token does. `None` where the server said nothing of either, or nothing can be done.
fn due_in(tokens: &Tokens, now: Moment) -> Option<Duration> {
    tokens.refresh.as_ref()?;
    let access = tokens.expiry.as_ref().map(|expiry| expiry.leeway_in(now));
    // One that was over when the tokens came says nothing of these.
    let end = tokens.refresh_expires_at.filter(|end| *end > tokens.received_at);
    let refresh = end.map(|end| {
        let lifetime = end.duration_since(tokens.received_at).unwrap_or_default();
        let left = end.duration_since(now.wall).unwrap_or_default();
        // As with the access token, whichever clock says sooner.
        let age = tokens.received.map(|received| now.mono.saturating_duration_since(received));
        let left = left.min(lifetime.saturating_sub(age.unwrap_or_default()));
        left.saturating_sub((lifetime / 5).min(REFRESH_TOKEN_LEEWAY))
    });
    [access, refresh].into_iter().flatten().min()
}

/// The longest that is slept at once. The clock that counts sleep may stand still while the
/// machine does, and a login made elsewhere is noticed no sooner than this.
const TICK: Duration = Duration::from_secs(30);

/// A refresh that was begun is looked at again so soon.
const AGAIN: Duration = Duration::from_millis(500);

/// Enough for a server that is down for a few minutes.
const REFRESH_TOKEN_LEEWAY: Duration = Duration::from_secs(5 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::{Birth, Identity, LoginId, TokenResponse};

    const NOTHING: Duration = Duration::ZERO;

    fn tokens(response: &TokenResponse, now: Moment) -> Tokens {
        let login = LoginId("login".to_owned());
        let identity = Identity { login, epoch: 1, generation: 0, birth: Birth::Login, key: None };
        Tokens::received(response, None, identity, now)
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_is_due_before_the_first_of_the_two_tokens_ends() {
        let now = Moment::now();
        let due = |response: TokenResponse| due_in(&tokens(&response, now), now);
        let both = || TokenResponse::new("at").refresh_token("rt");
        assert_eq!(due(both()), None, "nothing is known");
        assert_eq!(due(both().expires_in(seconds(100))), Some(seconds(80)));
        assert_eq!(due(both().expires_in(seconds(3600))), Some(seconds(3300)));
        assert_eq!(due(both().refresh_expires_in(seconds(3600))), Some(seconds(3300)));
        // The refresh token ends five minutes after the access token, or long before it.
        let access = || both().expires_in(seconds(600));
        assert_eq!(due(access().refresh_expires_in(seconds(900))), Some(seconds(480)));
        assert_eq!(due(access().refresh_expires_in(seconds(100))), Some(seconds(80)));
        let mut over = tokens(&access().refresh_expires_in(seconds(900)), now);
        over.refresh_expires_at = Some(now.wall - seconds(1));
        assert_eq!(due_in(&over, now), Some(seconds(480)), "an end before the beginning is none");
        over.refresh_expires_at = Some(now.wall);
        assert_eq!(due_in(&over, now), Some(seconds(480)), "nor is one at the beginning");
        let without = TokenResponse::new("at").expires_in(seconds(100));
        assert_eq!(due(without), None, "there is nothing to refresh with");
    }

    #[test]
    fn after_a_sleep_or_a_jump_of_the_clock_it_is_due_at_once_or_a_little_early() {
        let now = Moment::now();
        let tokens =
            tokens(&TokenResponse::new("at").refresh_token("rt").expires_in(seconds(600)), now);
        // While the machine slept, only the wall clock went on.
        let woken = Moment { wall: now.wall + seconds(7200), mono: now.mono + seconds(1) };
        assert_eq!(due_in(&tokens, woken), Some(NOTHING));
        // Set back by four hours: the other clock knows.
        let set_back = Moment { wall: now.wall - seconds(14400), mono: now.mono + seconds(500) };
        assert_eq!(due_in(&tokens, set_back), Some(NOTHING));
        // So it does where only the refresh token's end is known.
        let response =
            TokenResponse::new("at").refresh_token("rt").refresh_expires_in(seconds(600));
        let tokens = self::tokens(&response, now);
        assert_eq!(due_in(&tokens, woken), Some(NOTHING));
        assert_eq!(due_in(&tokens, set_back), Some(NOTHING));
        let sooner = Moment { mono: now.mono + seconds(400), ..set_back };
        assert_eq!(due_in(&tokens, sooner), Some(seconds(80)));
    }
}
