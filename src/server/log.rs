//! What the server writes about itself, to standard error. Other crates say no more than `info`:
//! their finer lines quote what passes through them, and card data passes through some of them.

use std::io;

use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata, Subscriber, error};
use tracing_subscriber::filter::{EnvFilter, FilterExt, filter_fn};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat};

/// Logs to standard error from now on, as the configuration says. Panics become lines too, without
/// their message: it may quote what the code choked on.
pub fn start_log(log: &Log) -> Result<(), String> {
    subscriber(log, io::stderr)?.try_init().map_err(|error| error.to_string())?;
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        error!(fault = "ringtill", at, "a defect in Ringtill; please report it");
    }));
    Ok(())
}

fn subscriber<W>(log: &Log, writer: W) -> Result<Box<dyn Subscriber + Send + Sync>, String>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let asked = EnvFilter::try_new(&log.level).map_err(|error| error.to_string())?;
    let filter = asked.and(filter_fn(is_fit_to_print));
    let lines = fmt::layer().with_writer(writer);
    let lines = match log.format {
        LogFormat::Json => lines.json().boxed(),
        LogFormat::Text => lines.boxed(),
    };
    Ok(Box::new(registry().with(lines.with_filter(filter))))
}

fn is_fit_to_print(metadata: &Metadata<'_>) -> bool {
    let ours = metadata.target().split("::").next() == Some(env!("CARGO_CRATE_NAME"));
    ours || LevelFilter::from_level(Level::INFO) >= *metadata.level()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn other_crates_are_never_heard_below_info() {
        for format in [LogFormat::Text, LogFormat::Json] {
            for level in ["trace", "trace,hyper=trace", "hyper_util=debug,reqwest=trace"] {
                let lines = Lines::default();
                let writer = lines.clone();
                let log = Log { level: level.into(), format };
                let subscriber = subscriber(&log, move || writer.clone()).unwrap();
                tracing::subscriber::with_default(subscriber, || {
                    tracing::trace!(target: "hyper::proto", "4111111111111111");
                    tracing::debug!(target: "hyper_util", "4111111111111111");
                    tracing::debug!(target: "ringtill_lookalike", "4111111111111111");
                    tracing::trace!(target: "reqwest", "4111111111111111");
                    tracing::info!(target: "reqwest", "heard");
                    tracing::trace!("ours");
                });
                let written = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
                assert!(!written.contains("4111"), "{level}: {written}");
                assert_eq!(written.contains("ours"), level.starts_with("trace"), "{level}");
                assert!(written.contains("heard"), "{level}: {written}");
            }
        }
    }
}
