//! The network on streams side by side: one feature vector of each in every 10 ms, one row of
//! log-posteriors a head out every few of them. What a stream costs is mostly to fetch the weights,
//! so all streams take a layer before the next. All they remember is in rings of fixed size,
//! zeroed on drop.

use std::sync::Arc;

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::model::{Conv, Depthwise, Layer, Model};

pub struct Network {
    model: Arc<Model>,
    streams: Vec<Memory>,
}

#[derive(Zeroize, ZeroizeOnDrop)]
struct Memory {
    rings: Vec<Ring>,
    /// The values between two layers.
    current: Vec<f32>,
    next: Vec<f32>,
    saved: Vec<f32>,
    /// Inputs of a convolution side by side.
    window: Vec<f32>,
    /// What each head told last.
    rows: Vec<Vec<f32>>,
}

/// What a layer remembers: its last inputs, or its means.
#[derive(Zeroize)]
struct Ring {
    values: Vec<f32>,
    channels: usize,
    /// Where the next input goes.
    next: usize,
    /// Inputs since the last output.
    since: usize,
}

impl Network {
    pub fn new(model: Arc<Model>, streams: usize) -> Network {
        let streams = (0..streams).map(|_| Memory::of(&model)).collect();
        Network { model, streams }
    }

    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Takes a vector of features for each stream, in their order; whether the heads have told
    /// something new. A stream without one keeps the last.
    pub fn push<'a>(&mut self, features: impl IntoIterator<Item = &'a [f32]>) -> bool {
        let Network { model, streams } = self;
        for (stream, features) in streams.iter_mut().zip(features) {
            copy(&mut stream.current, features);
        }
        for (nth, layer) in model.layers.iter().enumerate() {
            match layer {
                Layer::Conv(conv) => {
                    if !convolve(conv, streams, nth) {
                        return false;
                    }
                }
                Layer::Head { head, matrix } => {
                    matrix.apply(streams, |stream| {
                        let Memory { current, rows, .. } = stream;
                        (&current[..], &mut rows[*head][..])
                    });
                    streams.iter_mut().for_each(|stream| log_softmax(&mut stream.rows[*head]));
                }
                layer => streams.iter_mut().for_each(|stream| stream.pass(layer, nth)),
            }
        }
        true
    }

    /// Log-posteriors of a head's tokens, as a stream told last.
    pub fn row(&self, stream: usize, head: usize) -> &[f32] {
        &self.streams[stream].rows[head]
    }
}

impl Memory {
    fn of(model: &Model) -> Memory {
        let rings: Vec<Ring> = model.layers.iter().map(Ring::of).collect();
        let longest = model.layers.iter().map(|layer| match layer {
            Layer::Conv(conv) => conv.channels * conv.kernel,
            _ => 0,
        });
        let values = || Vec::with_capacity(model.widest);
        Memory {
            rings,
            current: values(),
            next: values(),
            saved: values(),
            window: vec![0.0; longest.max().unwrap_or(0)],
            rows: model.heads.iter().map(|head| vec![0.0; head.words.len()]).collect(),
        }
    }

    /// A layer without a matrix.
    fn pass(&mut self, layer: &Layer, nth: usize) {
        let Memory { rings, current, next, saved, .. } = self;
        match layer {
            Layer::Depthwise(depthwise) => {
                convolve_each(depthwise, &mut rings[nth], current, next);
                std::mem::swap(current, next);
            }
            Layer::Push => copy(saved, current),
            Layer::Add => {
                current.iter_mut().zip(&*saved).for_each(|(value, saved)| *value += saved);
            }
            Layer::Ema { rate, .. } => {
                for (mean, value) in rings[nth].values.iter_mut().zip(current) {
                    *mean += rate * (*value - *mean);
                    *value = *mean;
                }
            }
            Layer::Conv(_) | Layer::Head { .. } => (),
        }
    }

    /// Puts what a convolution sees side by side, if an output is due.
    fn see(&mut self, conv: &Conv, nth: usize) -> bool {
        let Memory { rings, current, window, .. } = self;
        let ring = &mut rings[nth];
        if conv.kernel > 1 {
            ring.push(current);
        }
        ring.since += 1;
        if ring.since < conv.stride {
            return false;
        }
        ring.since = 0;
        let window = &mut window[..conv.channels * conv.kernel];
        if conv.kernel == 1 {
            window.copy_from_slice(current);
            return true;
        }
        for (time, part) in window.chunks_exact_mut(conv.channels).enumerate() {
            part.copy_from_slice(ring.back((conv.kernel - 1 - time) * conv.dilation));
        }
        true
    }
}

impl Ring {
    fn of(layer: &Layer) -> Ring {
        let (channels, len) = match layer {
            Layer::Conv(conv) if conv.kernel == 1 => (conv.channels, 0),
            Layer::Conv(conv) => (conv.channels, (conv.kernel - 1) * conv.dilation + 1),
            Layer::Depthwise(each) => (each.channels, (each.kernel - 1) * each.dilation + 1),
            Layer::Ema { channels, .. } => (*channels, 1),
            Layer::Push | Layer::Add | Layer::Head { .. } => (0, 0),
        };
        Ring { values: vec![0.0; channels * len], channels, next: 0, since: 0 }
    }

    fn push(&mut self, input: &[f32]) {
        let at = self.next * self.channels;
        self.values[at..at + self.channels].copy_from_slice(input);
        self.next = (self.next + 1) % self.len();
    }

    fn len(&self) -> usize {
        self.values.len() / self.channels.max(1)
    }

    /// The input so many before the last.
    fn back(&self, back: usize) -> &[f32] {
        let at = (self.next + self.len() - 1 - back) % self.len() * self.channels;
        &self.values[at..at + self.channels]
    }
}

/// Whether an output is due: all streams have had as many inputs.
fn convolve(conv: &Conv, streams: &mut [Memory], nth: usize) -> bool {
    let mut due = false;
    for stream in &mut *streams {
        due = stream.see(conv, nth);
        stream.next.resize(conv.matrix.bias.len(), 0.0);
    }
    if !due {
        return false;
    }
    let len = conv.channels * conv.kernel;
    conv.matrix.apply(streams, |stream| (&stream.window[..len], &mut stream.next[..]));
    for stream in streams {
        if conv.relu {
            rectify(&mut stream.next);
        }
        std::mem::swap(&mut stream.current, &mut stream.next);
    }
    true
}

fn convolve_each(each: &Depthwise, ring: &mut Ring, input: &[f32], out: &mut Vec<f32>) {
    ring.push(input);
    copy(out, &each.bias);
    for (time, weights) in each.weights.chunks_exact(each.channels).enumerate() {
        let input = ring.back((each.kernel - 1 - time) * each.dilation);
        for ((sum, weight), value) in out.iter_mut().zip(weights).zip(input) {
            *sum += weight * value;
        }
    }
    if each.relu {
        rectify(out);
    }
}

fn rectify(values: &mut [f32]) {
    values.iter_mut().for_each(|value| *value = value.max(0.0));
}

fn log_softmax(values: &mut [f32]) {
    let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = values.iter().map(|value| (value - most).exp()).sum();
    let whole = most + sum.ln();
    values.iter_mut().for_each(|value| *value -= whole);
}

/// Within what `to` has room for from the start: nothing is allocated.
fn copy(to: &mut Vec<f32>, from: &[f32]) {
    to.clear();
    to.extend_from_slice(from);
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::Writer;
    use super::*;

    fn network(writer: Writer) -> Network {
        Network::new(Arc::new(Model::read(&writer.done()).ok().unwrap()), 1)
    }

    /// A head that tells the two values before it, shifted to their log-posteriors.
    fn told(network: &mut Network, inputs: &[[f32; 2]]) -> Vec<f32> {
        let mut told = vec![];
        for input in inputs {
            if network.push([&input[..]]) {
                told.push(network.row(0, 0)[1] - network.row(0, 0)[0]);
            }
        }
        told
    }

    fn head(writer: Writer) -> Writer {
        // Tells 0 and the sum of both values.
        writer
            .layer(6, false, &[2, 2])
            .text("h")
            .text("-")
            .text("one")
            .matrix(&[&[0, 0], &[2, 2]], &[0.0, 0.0])
    }

    #[test]
    fn a_convolution_sees_the_past_alone_and_strides() {
        // y0 = x0[t-2] + 2*x1[t] + 1, y1 = 0; one output every two inputs.
        let conv = Writer::new(2, 2).layer(1, false, &[2, 2, 2, 2, 2]);
        let mut network = network(head(conv.matrix(&[&[2, 0, 0, 4], &[0, 0, 0, 0]], &[1.0, 0.0])));
        let inputs = [[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [4.0, 40.0]];
        assert_eq!(told(&mut network, &inputs), [41.0, 83.0]);
    }

    #[test]
    fn a_block_adds_what_it_saved() {
        // Depthwise over two inputs, rectified, and the input added: y = max(0, x[t-1] - x[t]) + x.
        let block = Writer::new(2, 4).layer(3, false, &[]).layer(2, true, &[2, 2, 1]);
        let block = block.matrix(&[&[2, -2], &[2, -2]], &[0.0, 0.0]).layer(4, false, &[]);
        let mut network = network(head(block));
        assert_eq!(told(&mut network, &[[5.0, 1.0], [2.0, 4.0]]), [6.0, 9.0]);
    }

    #[test]
    fn a_mean_follows_its_input() {
        let mean = Writer::new(2, 2).layer(5, false, &[2]).rate(0.5);
        let mut network = network(head(mean));
        assert_eq!(told(&mut network, &[[8.0, 0.0], [8.0, 0.0]]), [4.0, 6.0]);
    }

    #[test]
    fn a_row_is_a_distribution() {
        let mut network = network(head(Writer::new(2, 1)));
        assert!(network.push([&[1.5, 0.25][..]]));
        let sum: f32 = network.row(0, 0).iter().map(|value| value.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-5);
    }
}
