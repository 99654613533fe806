//! Logins on another device (RFC 8628).

use std::time::{Duration, Instant};

use crate::grant::{after, random};

/// The logins whose tokens nobody has fetched.
#[derive(Default)]
pub(crate) struct Devices(Vec<Device>);

pub(crate) struct Device {
    pub(crate) device_code: String,
    pub(crate) user_code: String,
    client_id: String,
    until: Instant,
    decision: Option<Decision>,
    interval: Duration,
    last_poll: Option<Instant>,
}

/// What the person says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Allowed(String),
    Denied,
}

/// What a poll tells the client (RFC 8628 §3.5).
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Poll {
    Unknown,
    Pending,
    SlowDown,
    Expired,
    Denied,
    Allowed(String),
}

impl Devices {
    pub(crate) fn begin(
        &mut self,
        client_id: &str,
        ttl: Duration,
        interval: Duration,
        now: Instant,
    ) -> &Device {
        self.0.push(Device {
            device_code: random("device_"),
            user_code: user_code(),
            client_id: client_id.to_owned(),
            until: after(now, ttl),
            decision: None,
            interval,
            last_poll: None,
        });
        &self.0[self.0.len() - 1]
    }

    /// Decides on the login with that code, once and in time. Whether there is one.
    pub(crate) fn decide(&mut self, user_code: &str, decision: Decision, now: Instant) -> bool {
        let wanted = letters(user_code);
        let found = self
            .0
            .iter_mut()
            .find(|device| device.is_undecided_at(now) && letters(&device.user_code) == wanted);
        let Some(device) = found else { return false };
        device.decision = Some(decision);
        true
    }

    pub(crate) fn poll(&mut self, device_code: &str, client_id: &str, now: Instant) -> Poll {
        let is_meant = |it: &Device| it.device_code == device_code && it.client_id == client_id;
        let Some(at) = self.0.iter().position(is_meant) else {
            return Poll::Unknown;
        };
        let device = &mut self.0[at];
        if now >= device.until {
            return Poll::Expired;
        }
        let is_too_soon = device.last_poll.is_some_and(|last| now < after(last, device.interval));
        device.last_poll = Some(now);
        if is_too_soon {
            device.interval = device.interval.saturating_add(SLOWER);
            return Poll::SlowDown;
        }
        match &device.decision {
            None => Poll::Pending,
            Some(Decision::Denied) => Poll::Denied,
            Some(Decision::Allowed(user)) => {
                let user = user.clone();
                self.0.remove(at);
                Poll::Allowed(user)
            }
        }
    }

    /// The codes that a person can still enter.
    pub(crate) fn user_codes(&self, now: Instant) -> Vec<String> {
        let open = self.0.iter().filter(|device| device.is_undecided_at(now));
        open.map(|device| device.user_code.clone()).collect()
    }
}

impl Device {
    fn is_undecided_at(&self, now: Instant) -> bool {
        self.decision.is_none() && now < self.until
    }
}

/// Without vowels, so that no code is a word (RFC 8628 §6.1).
fn user_code() -> String {
    let mut bytes = [0; 8];
    // Fails only where the system has no source of randomness at all.
    getrandom::fill(&mut bytes).expect("the system has no randomness");
    let letter = |byte: &u8| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]);
    let code: String = bytes.iter().map(letter).collect();
    format!("{}-{}", &code[..4], &code[4..])
}

/// What is left of a code in any way of writing it.
fn letters(code: &str) -> String {
    code.chars().filter(char::is_ascii_alphabetic).map(|c| c.to_ascii_uppercase()).collect()
}

const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";

/// RFC 8628 §3.5.
const SLOWER: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn each_poll_that_comes_too_soon_raises_the_interval_by_five_seconds_for_good() {
        let (mut devices, start) = (Devices::default(), Instant::now());
        let code = devices.begin("app", seconds(600), seconds(2), start).device_code.clone();
        let mut poll = |at| devices.poll(&code, "app", start + seconds(at));
        assert_eq!(poll(0), Poll::Pending);
        assert_eq!(poll(2), Poll::Pending);
        assert_eq!(poll(3), Poll::SlowDown);
        assert_eq!(poll(10), Poll::Pending, "seven seconds are enough");
        assert_eq!(poll(16), Poll::SlowDown, "and six are not, from then on");
        assert_eq!(poll(27), Poll::SlowDown, "nor are eleven");
        assert_eq!(poll(44), Poll::Pending, "seventeen are");
    }

    #[test]
    fn a_code_ends_with_its_lifetime_for_the_client_and_for_the_person() {
        let (mut devices, start) = (Devices::default(), Instant::now());
        let device = devices.begin("app", seconds(60), seconds(0), start);
        let (code, user_code) = (device.device_code.clone(), device.user_code.clone());
        let (almost, end) = (start + Duration::from_millis(59_999), start + seconds(60));
        assert_eq!(devices.poll(&code, "app", almost), Poll::Pending);
        assert_eq!(devices.user_codes(almost), [user_code.as_str()]);
        assert_eq!(devices.poll(&code, "app", end), Poll::Expired);
        assert_eq!(devices.user_codes(end), [""; 0]);
        assert!(!devices.decide(&user_code, Decision::Denied, end));
    }

    #[test]
    fn a_lifetime_may_be_longer_than_any_clock() {
        let (mut devices, now) = (Devices::default(), Instant::now());
        let device = devices.begin("app", Duration::MAX, Duration::MAX, now);
        let code = device.device_code.clone();
        assert_eq!(devices.poll(&code, "app", now), Poll::Pending);
        assert_eq!(devices.poll(&code, "app", now), Poll::SlowDown);
    }
}
