//! `ringtill talk`.

use std::process::ExitCode;
use std::time::Duration;

use ringtill::dial::script::Keying;
use ringtill::server::listen::{self, Asked};
use ringtill::server::{dial, talk};
use ringtill::sip::offer::{Law, SrtpPolicy};

#[derive(clap::Args)]
pub struct Arguments {
    /// Whom to call, such as sip:pay@192.0.2.10:5060; without it the recognizer listens
    #[arg(required_unless_present = "field", conflicts_with = "field")]
    target: Option<String>,
    /// What the recognizer asks for: each answer is a line of JSON
    #[arg(long, value_enum)]
    field: Option<Asked>,
    /// What hears it: digits (built in), or whisper:PATH with a ggml model
    #[arg(long, default_value = "digits", requires = "field")]
    engine: String,
    /// Our number, or a whole SIP URI
    #[arg(long)]
    from: Option<String>,
    /// The call is ended after this
    #[arg(long, default_value_t = 1800, value_name = "SECONDS")]
    seconds_max: u64,
}

/// Exit code 0: the call was ended, by either side; 1: it was not placed, or there is no headset,
/// or none any more.
pub async fn run(arguments: Arguments) -> ExitCode {
    let Some(target) = arguments.target else {
        let Some(asked) = arguments.field else { return super::fail("say whom to call") };
        eprintln!("to say: {}; after a pause another; interrupt to end", asked.name());
        return match talk::answer(asked, &arguments.engine, &mut std::io::stdout()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(listen::Error::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                ExitCode::SUCCESS
            }
            Err(error) => super::fail(&error.to_string()),
        };
    };
    let person = match talk::Here::open() {
        Ok(here) => here,
        Err(error) => return super::fail(&error.to_string()),
    };
    let options = dial::Options {
        target,
        from: arguments.from,
        script: String::new(),
        keying: Keying::default(),
        srtp: SrtpPolicy::Optional,
        laws: vec![Law::Mu, Law::A],
        headers: Vec::new(),
        prompts: ringtill::prompt::Settings::default(),
        local: None,
        call_max: Duration::from_secs(arguments.seconds_max),
        person: Some(Box::new(person)),
    };
    dial::dial(options, &mut std::io::stdout()).await
}
