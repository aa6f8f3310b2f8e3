//! prompts heard.
