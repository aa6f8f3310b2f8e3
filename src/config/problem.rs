//! One thing that is wrong with the configuration, shown with its line and a caret.

use std::ops::Range;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Bytes of the text that are wrong; the whole file when nothing in it can be pointed at.
    pub span: Option<Range<usize>>,
    pub message: String,
    /// What to write instead.
    pub instead: Option<String>,
}

impl Problem {
    pub fn new(span: Option<Range<usize>>, message: impl Into<String>) -> Problem {
        Problem { span, message: message.into(), instead: None }
    }

    pub fn instead(self, instead: impl Into<String>) -> Problem {
        Problem { instead: Some(instead.into()), ..self }
    }

    /// The problem as text: message, file, line, caret, what to write instead.
    pub fn render(&self, path: &str, text: &str) -> String {
        let title = Level::ERROR.primary_title(self.message.as_str());
        let Some(span) = &self.span else {
            let instead = self.instead.as_ref().map(|i| format!("\n  = help: {i}"));
            return format!("error: {}\n --> {path}{}", self.message, instead.unwrap_or_default());
        };
        let end = span.end.min(text.len()).max(span.start.min(text.len()));
        let mut mark = AnnotationKind::Primary.span(span.start.min(end)..end);
        if let Some(instead) = &self.instead {
            mark = mark.label(instead.as_str());
        }
        let snippet = Snippet::source(text).path(path).annotation(mark);
        let report = [title.element(snippet)];
        Renderer::plain().decor_style(DecorStyle::Ascii).render(&report).to_string()
    }
}
