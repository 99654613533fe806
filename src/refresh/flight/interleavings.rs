//! The single flight and the state in thousands of orders: at each lock and each step of a task,
//! shuttle decides who goes on. One that fails prints the schedule that repeats it.
//!
//! ```sh
//! RUSTFLAGS="--cfg shuttle" cargo test --lib --target-dir target/shuttle interleavings
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use shuttle::future::{JoinHandle, block_on, spawn, yield_now};

use super::{Landing, SingleFlight};
use crate::error::Error;
use crate::event::LogoutReason;
use crate::session::State;
use crate::sync::Mutex;
use crate::token::{Birth, Identity, LoginId, Moment, TokenResponse, Tokens};

/// What of a session takes part: the code is the session's, but for the refresh itself.
#[derive(Clone)]
struct Scene(Arc<Parts>);

struct Parts {
    state: State,
    refreshing: SingleFlight<Arc<Tokens>>,
    /// How often a refresh token was sent.
    posts: AtomicU64,
    /// The last refresh has just failed.
    cooling: Mutex<Option<Error>>,
    /// What was begun.
    refreshes: Mutex<Vec<JoinHandle<()>>>,
    rules: Rules,
}

/// How the refresh goes, and what is left out to see that it is missed.
#[derive(Clone, Copy, Default)]
struct Rules {
    fails: bool,
    panics: bool,
    never_looks: bool,
    abandons_nobody: bool,
}

impl Scene {
    fn new(rules: Rules) -> Self {
        let parts = Parts {
            state: State::new(),
            refreshing: SingleFlight::new(),
            posts: AtomicU64::new(0),
            cooling: Mutex::new(None),
            refreshes: Mutex::new(Vec::new()),
            rules,
        };
        let scene = Self(Arc::new(parts));
        scene.0.state.log_in(tokens("alice", 1, 0), Some(LogoutReason::Requested)).unwrap();
        scene
    }

    fn tokens(&self) -> Arc<Tokens> {
        self.0.state.tokens().unwrap()
    }

    fn tokens_of(&self, epoch: u64) -> Result<Arc<Tokens>, Error> {
        let tokens = self.0.state.tokens().filter(|tokens| tokens.epoch == epoch);
        tokens.ok_or_else(|| self.0.state.logged_out())
    }

    /// A request whose token was refused.
    fn request(&self, refused: &Arc<Tokens>) -> JoinHandle<Result<Arc<Tokens>, Error>> {
        let (scene, refused) = (self.clone(), Arc::clone(refused));
        spawn(async move {
            yield_now().await;
            scene.refresh(&refused).await
        })
    }

    async fn refresh(&self, refused: &Arc<Tokens>) -> Result<Arc<Tokens>, Error> {
        let look_again = || {
            if self.0.rules.never_looks {
                return None;
            }
            match self.tokens_of(refused.epoch) {
                Ok(current) if current.supersede(refused) => Some(Ok(current)),
                Ok(_) => self.0.cooling.lock().unwrap().clone().map(Err),
                Err(over) => Some(Err(over)),
            }
        };
        let start = |landing| self.start(refused, landing);
        let is_newer = |tokens: &Arc<Tokens>| tokens.supersede(refused);
        self.0.refreshing.fly(refused.version(), look_again, start, is_newer).await
    }

    /// The transaction: sends, keeps, tells.
    fn start(&self, refused: &Arc<Tokens>, landing: Landing<Arc<Tokens>>) {
        let (scene, refused) = (self.clone(), Arc::clone(refused));
        let work = async move {
            yield_now().await;
            scene.0.posts.fetch_add(1, Ordering::SeqCst);
            yield_now().await;
            if scene.0.rules.panics {
                // As a task that panics: nobody lands it.
                return;
            }
            let result = if scene.0.rules.fails {
                let error = Error::busy();
                *scene.0.cooling.lock().unwrap() = Some(error.clone());
                Err(error)
            } else {
                let new = tokens(&refused.login.0, refused.epoch, refused.generation + 1);
                let kept = scene.0.state.advance(refused.epoch, &new);
                kept.map_err(|_| scene.0.state.logged_out())
            };
            yield_now().await;
            landing.land(result);
        };
        self.0.refreshes.lock().unwrap().push(spawn(work));
    }

    /// Lets what was begun come to its end.
    async fn end(&self) {
        loop {
            let Some(refresh) = self.0.refreshes.lock().unwrap().pop() else {
                return;
            };
            refresh.await.unwrap();
        }
    }

    fn log_out(&self) {
        let _ = self.0.state.log_out(SystemTime::now());
        self.abandon(Some(LogoutReason::Requested));
    }

    fn log_in(&self, who: &str) {
        loop {
            let new = tokens(who, self.0.state.epoch() + 1, 0);
            if self.0.state.log_in(new, Some(LogoutReason::Requested)).is_ok() {
                break self.abandon(Some(LogoutReason::Requested));
            }
        }
    }

    fn abandon(&self, why: Option<LogoutReason>) {
        if !self.0.rules.abandons_nobody {
            let epoch = self.0.state.epoch();
            self.0.refreshing.abandon_before(epoch, Error::logged_out(why));
        }
    }

    fn is_waited_for(&self, epoch: u64) -> bool {
        self.0.refreshing.under_way(epoch).is_some()
    }

    fn posts(&self) -> u64 {
        self.0.posts.load(Ordering::SeqCst)
    }
}

fn tokens(login: &str, epoch: u64, generation: u64) -> Arc<Tokens> {
    let identity = Identity {
        login: LoginId(login.to_owned()),
        epoch,
        generation,
        birth: Birth::Login,
        key: None,
    };
    let response = TokenResponse::new(format!("{login}-{generation}")).refresh_token("refresh");
    Arc::new(Tokens::received(&response, None, identity, Moment::now()))
}

/// In as many orders at random, and as many more that are chosen to be nasty.
fn in_any_order<F: Future<Output = ()> + 'static>(
    rules: Rules,
    test: impl Fn(Scene) -> F + Send + Sync + 'static,
) {
    let run = move || {
        block_on(async {
            let scene = Scene::new(rules);
            test(scene.clone()).await;
            scene.end().await;
        });
    };
    let run = Arc::new(run);
    let again = Arc::clone(&run);
    shuttle::check_random(move || run(), ORDERS);
    shuttle::check_pct(move || again(), ORDERS, 3);
}

async fn ends<T>(task: JoinHandle<T>) -> T {
    task.await.unwrap()
}

#[test]
fn any_number_of_refused_requests_make_one_refresh_and_all_get_its_tokens() {
    in_any_order(Rules::default(), |scene| async move {
        let refused = scene.tokens();
        let requests = [(); 4].map(|()| scene.request(&refused));
        for request in requests {
            assert_eq!(ends(request).await.unwrap().generation, 1);
        }
        assert_eq!(scene.posts(), 1);
        // One that comes late.
        assert_eq!(scene.refresh(&refused).await.unwrap().generation, 1);
        assert_eq!(scene.posts(), 1);
    });
}

#[test]
fn tokens_that_are_refused_in_turn_cost_one_refresh_each() {
    in_any_order(Rules::default(), |scene| async move {
        let first = scene.tokens();
        let early = [(); 2].map(|()| scene.request(&first));
        let second = scene.refresh(&first).await.unwrap();
        let late = [scene.request(&second), scene.request(&first), scene.request(&second)];
        for request in early.into_iter().chain(late) {
            assert!(ends(request).await.unwrap().generation >= 1);
        }
        assert_eq!((scene.posts(), scene.tokens().generation), (2, 2));
    });
}

#[test]
fn a_failure_is_one_request_and_one_error_for_all() {
    in_any_order(Rules { fails: true, ..Rules::default() }, |scene| async move {
        let requests = [(); 4].map(|()| scene.request(&scene.tokens()));
        let mut errors = Vec::new();
        for request in requests {
            errors.push(ends(request).await.unwrap_err());
        }
        assert!(errors.iter().all(|error| error.is_same(&errors[0])));
        assert_eq!(scene.posts(), 1);
    });
}

#[test]
fn whoever_is_dropped_takes_nothing_with_them() {
    in_any_order(Rules::default(), |scene| async move {
        let refused = scene.tokens();
        let requests = [(); 3].map(|()| scene.request(&refused));
        let [dropped, others @ ..] = requests;
        dropped.abort();
        let _ = dropped.await;
        for request in others {
            assert_eq!(ends(request).await.unwrap().generation, 1);
        }
        assert_eq!(scene.posts(), 1);
    });
}

#[test]
fn a_refresh_that_never_lands_leaves_nobody_waiting() {
    in_any_order(Rules { panics: true, ..Rules::default() }, |scene| async move {
        let refused = scene.tokens();
        for request in [(); 3].map(|()| scene.request(&refused)) {
            assert!(ends(request).await.is_err());
        }
        assert_eq!(scene.tokens().generation, 0);
    });
}

#[test]
fn after_a_logout_nobody_waits_and_what_the_refresh_brings_is_nobodys() {
    in_any_order(Rules::default(), |scene| async move {
        let refused = scene.tokens();
        let requests = [(); 3].map(|()| scene.request(&refused));
        let logout = spawn({
            let scene = scene.clone();
            async move {
                scene.log_out();
                assert!(!scene.is_waited_for(1));
            }
        });
        ends(logout).await;
        // From here on.
        assert!(scene.refresh(&refused).await.unwrap_err().is_logged_out());
        for request in requests {
            match ends(request).await {
                Ok(tokens) => assert_eq!(tokens.version(), (1, 1)),
                Err(error) => assert!(error.is_logged_out()),
            }
        }
        assert!(scene.0.state.tokens().is_none());
        assert!(scene.posts() <= 1);
    });
}

#[test]
fn no_request_of_one_login_goes_on_with_the_tokens_of_the_next() {
    in_any_order(Rules::default(), |scene| async move {
        let alices = scene.tokens();
        let requests = [(); 2].map(|()| scene.request(&alices));
        let login = spawn({
            let scene = scene.clone();
            async move {
                scene.log_in("bob");
                let bobs = scene.tokens_of(2).unwrap();
                scene.refresh(&bobs).await.unwrap()
            }
        });
        for request in requests {
            match ends(request).await {
                Ok(tokens) => assert_eq!(tokens.login.0, "alice"),
                Err(error) => assert!(error.is_logged_out()),
            }
        }
        let bobs = ends(login).await;
        assert_eq!((bobs.login.0.as_str(), bobs.epoch, bobs.generation), ("bob", 2, 1));
        assert!(scene.posts() <= 2);
    });
}

#[test]
fn a_logout_and_a_login_at_once_leave_one_of_them_whole() {
    in_any_order(Rules::default(), |scene| async move {
        let refused = scene.tokens();
        let request = scene.request(&refused);
        let (out, back) = (scene.clone(), scene.clone());
        let both = [spawn(async move { out.log_out() }), spawn(async move { back.log_in("bob") })];
        for task in both {
            ends(task).await;
        }
        if let Some(tokens) = scene.0.state.tokens() {
            assert_eq!(tokens.login.0, "bob");
        }
        assert!(ends(request).await.map_or(true, |tokens| tokens.login.0 == "alice"));
    });
}

// What is left out is missed.

#[test]
#[should_panic(expected = "2 refreshes")]
fn who_does_not_look_again_refreshes_twice() {
    in_any_order(Rules { never_looks: true, ..Rules::default() }, |scene| async move {
        let refused = scene.tokens();
        for request in [(); 2].map(|()| scene.request(&refused)) {
            let _ = ends(request).await;
        }
        scene.end().await;
        assert_eq!(scene.posts(), 1, "{} refreshes", scene.posts());
    });
}

#[test]
#[should_panic(expected = "still waits")]
fn who_is_not_abandoned_by_a_logout_waits_on() {
    in_any_order(Rules { abandons_nobody: true, ..Rules::default() }, |scene| async move {
        let waiting = scene.request(&scene.tokens());
        yield_now().await;
        scene.log_out();
        let is_waited_for = scene.is_waited_for(1);
        let _ = ends(waiting).await;
        scene.end().await;
        assert!(!is_waited_for, "still waits");
    });
}

const ORDERS: usize = 5000;
