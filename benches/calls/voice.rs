//! Callers who say what they are asked for, many at once, beside one who only listens.

use super::*;

const CALLS: usize = 100;
/// From one call to the next.
const APART: Duration = Duration::from_millis(150);
const SPEECH: &str = "[speech]\nengine = \"digits\"\nfields = [\"all\"]\n";

/// The same questions by key and by voice, up to where money would move.
const KEYED: &str = "hear-start menu.amount_say, pause 500, key 1,
    hear-start card.say, pause 4000, key 4111111111111111#, hear-start expiry.say, pause 2000,
    key 0930, pause 2000, hear-start cvv.say_three, pause 500, key 349,
    hear-start zip.say, pause 2000, key 75201, hear-start consent.payment 60, hangup";

fn spoken() -> String {
    let [one, card, expiry, zip, yes] = ["one", "card", "expiry", "zip", "yes"]
        .map(|name| format!("{}/src/server/demo/voice/{name}.flac", env!("CARGO_MANIFEST_DIR")));
    format!(
        "hear-start menu.amount_say, pause 500, say {one}, hear-start card.say, pause 500,
         say {card}, hear-start expiry.say 60, pause 500, say {expiry},
         hear-start speech.yes_no 60, pause 300, say {yes}, hear-start cvv.say_three, pause 500,
         key 349, hear-start zip.say, pause 500, say {zip}, hear-start speech.yes_no 60, pause 300,
         say {yes}, hear-start consent.payment 60, hangup"
    )
}

pub fn speaking(runtime: &Runtime) {
    let library = prompts::load(&prompt::Settings::default()).unwrap();
    let indexes = dial::indexes(&library, &[Law::Mu]);
    for (how, script) in [("keyed", KEYED.to_string()), ("spoken", spoken())] {
        let server = Server::start("", SPEECH);
        let rtp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let callers = runtime.block_on(Callers::bind(Transport::Udp, ip(1), ip(1)));
        let _listening = runtime.block_on(callers.call(server.address, rtp.local_addr().unwrap()));
        let listener = thread::spawn(move || arrivals(&rtp));
        let (cpu, begin) = (server.cpu_ms(), now());
        let calls: Vec<_> = (0..CALLS)
            .map(|nth| {
                let mut steps = Script::parse(&script, &|id| dial::knows(&library, id)).unwrap();
                steps
                    .load(|name| {
                        dial::sound(fs::read(name).map_err(|e| e.to_string())?.into())
                            .map_err(|e| e.to_string())
                    })
                    .unwrap();
                let call = dial::Call {
                    target: format!("sip:pay@{}", server.address),
                    from: Some("+13175550123".into()),
                    headers: Vec::new(),
                    prompts: indexes.clone(),
                    script: steps,
                    keying: Keying::default(),
                    srtp: SrtpPolicy::Off,
                    local: None,
                    call_max: Duration::from_secs(150),
                    person: None,
                };
                let wait = APART * nth as u32;
                runtime.spawn(async move {
                    tokio::time::sleep(wait).await;
                    let begin = now();
                    let placed = Box::pin(dial::place(call, &mut |_, _| {})).await;
                    (placed.map_err(|error| error.to_string()), begin.elapsed())
                })
            })
            .collect();
        let (mut right, mut lasted, mut wrong) = (0, Duration::ZERO, Vec::new());
        for call in calls {
            let (placed, took) = runtime.block_on(call).unwrap();
            lasted += took;
            match placed {
                Ok(()) => right += 1,
                Err(why) => wrong.push(why),
            }
        }
        let cpu = (server.cpu_ms() - cpu) as f64 / 1e3;
        let end = now();
        println!(
            "voice: {CALLS} {how} calls at once, {right} as their script says; {:.0} s of calls \
             cost {cpu:.1} s CPU: {:.2} % of a core a call",
            lasted.as_secs_f64(),
            100.0 * cpu / lasted.as_secs_f64()
        );
        wrong.iter().take(3).for_each(|why| println!("voice: {why}"));
        let (_, log) = server.stop(runtime);
        println!("voice: pacing: {}", pacing(&listener.join().unwrap(), begin, end));
        let spoke = log.lines().find(|line| line.contains("callers spoke"));
        println!("voice: {}", spoke.unwrap_or("nobody spoke"));
    }
}
