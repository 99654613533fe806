//! Stops a worker where its refresh has come to a step, on the thread that does the work.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use super::said::Said;

/// Where to stop, if anywhere.
#[derive(Clone, Default)]
pub struct Steps(Arc<Shared>);

#[derive(Default)]
struct Shared {
    stop_at: Mutex<Option<String>>,
    changed: Condvar,
}

impl Steps {
    /// Of this process, from now on.
    pub fn watch() -> Self {
        let steps = Self::default();
        let ours = Targets::new().with_target("reqwest_reauth", LevelFilter::TRACE);
        tracing_subscriber::registry().with(steps.clone().with_filter(ours)).init();
        steps
    }

    /// Stops at the next step of this name; with `None` goes on.
    pub fn stop_at(&self, step: Option<String>) {
        *self.0.stop_at.lock().unwrap_or_else(PoisonError::into_inner) = step;
        self.0.changed.notify_all();
    }

    fn pass(&self, step: &str) {
        Said::Step(step.to_owned()).say();
        let mut stop_at = self.0.stop_at.lock().unwrap_or_else(PoisonError::into_inner);
        if stop_at.as_deref() != Some(step) {
            return;
        }
        Said::Stopped(step.to_owned()).say();
        while stop_at.as_deref() == Some(step) {
            stop_at = self.0.changed.wait(stop_at).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<S: Subscriber> Layer<S> for Steps {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut step = Step(None);
        event.record(&mut step);
        if let Some(step) = step.0 {
            self.pass(&step);
        }
    }
}

struct Step(Option<String>);

impl Visit for Step {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "step" {
            self.0 = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}
