//! What a stream keeps of both directions: the whole call, or the segments that are asked for.

use super::*;

/// What is said this long after a sensitive window still belongs to it.
const AFTER_WINDOW: Duration = Duration::from_millis(500);

impl Stream {
    /// The next 20 ms of the recording. Without [`Setup::record`] there are only those of segments,
    /// each segment followed by one frame that is not part of it.
    pub fn recorded(&mut self) -> Option<Recorded> {
        let recorder = self.recorder.as_mut()?;
        let recorded = recorder.take();
        if recorded.is_none() && recorder.is_idle() {
            self.recorder = None;
        }
        recorded
    }

    /// The call is over: [`Stream::recorded`] gives what was still held back.
    pub fn close(&mut self) {
        if let Some(recorder) = &mut self.recorder {
            recorder.close();
        }
    }

    /// The script's windows, and all of the time with an agent, who may take a card.
    pub(super) fn silence_recording(&mut self) {
        let silent = self.is_silenced();
        if let Some(recorder) = &mut self.recorder {
            recorder.sensitive(silent);
        }
    }

    pub(super) fn mark_segment(&mut self, now: Instant, segment: Option<SegmentId>) {
        if self.recorder.is_none() && segment.is_some() {
            self.recorder = Some(self.begin_recording(now));
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.mark(segment);
        }
    }

    /// A recorder for segments alone begins in the middle of the call: the end of a window, or of
    /// a key, may reach into it.
    fn begin_recording(&self, now: Instant) -> Recorder {
        let mut recorder = Recorder::new(false);
        let left = |until: Instant| now.saturating_duration_since(until) < AFTER_WINDOW;
        if self.is_silenced() || self.sensitive_until.is_some_and(left) {
            recorder.sensitive(true);
            recorder.sensitive(self.is_silenced());
        }
        recorder.key();
        recorder
    }

    fn is_silenced(&self) -> bool {
        self.sensitive || self.relay.is_some()
    }
}
