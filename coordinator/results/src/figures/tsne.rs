//! Exact two-dimensional t-SNE (van der Maaten and Hinton 2008): the figures have hundreds of points,
//! and the same points must give the same picture on every machine. Nothing is random: it starts from
//! the first two principal components, which also preserves global distances (Kobak and Berens 2019).

/// The perplexity, unless there are too few points.
const PERPLEXITY: f64 = 30.0;
const STEPS: usize = 750;
/// The steps and the factor of early exaggeration.
const EARLY: (usize, f64) = (250, 12.0);
/// The standard deviation of the initial positions.
const INITIAL: f64 = 1e-4;

/// Embeds `points`, `[count][width]`, in the plane.
pub(super) fn embed(points: &[f32], width: usize) -> Vec<[f64; 2]> {
    let count = points.len().checked_div(width).unwrap_or(0);
    if count < 3 {
        return (0..count).map(|i| [i as f64, 0.0]).collect();
    }
    let distances = distances(points, width, count);
    let affinities = affinities(&distances, count);
    let mut places = principal(&distances, count);
    descend(&affinities, &mut places);
    places
}

/// Squared distances, `[count][count]`.
fn distances(points: &[f32], width: usize, count: usize) -> Vec<f64> {
    let row = |i: usize| &points[i * width..(i + 1) * width];
    let mut distances = vec![0.0; count * count];
    for i in 0..count {
        for j in 0..i {
            let pairs = row(i).iter().zip(row(j));
            let sum: f64 = pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum();
            distances[i * count + j] = sum;
            distances[j * count + i] = sum;
        }
    }
    distances
}

/// Affinities `[count][count]`, symmetric, with sum 1: the precision of each point gives all the same
/// perplexity.
fn affinities(distances: &[f64], count: usize) -> Vec<f64> {
    let perplexity = PERPLEXITY.min((count as f64 - 1.0) / 3.0).max(1.0);
    let mut near = vec![0.0; count * count];
    for i in 0..count {
        let own = &distances[i * count..(i + 1) * count];
        let row = &mut near[i * count..(i + 1) * count];
        let others = || (0..count).filter(|j| *j != i);
        // Subtracting the minimum changes nothing, but keeps the nearest above 0.
        let min = others().map(|j| own[j]).fold(f64::INFINITY, f64::min);
        let (mut low, mut high) = (0.0, f64::INFINITY);
        let mean = others().map(|j| own[j] - min).sum::<f64>() / (count as f64 - 1.0);
        let mut precision = if mean > 0.0 { 1.0 / mean } else { 1.0 };
        for _ in 0..64 {
            let (mut sum, mut weighted) = (0.0, 0.0);
            for j in others() {
                let away = own[j] - min;
                row[j] = (-away * precision).exp();
                sum += row[j];
                weighted += away * row[j];
            }
            let entropy = sum.ln() + precision * weighted / sum;
            others().for_each(|j| row[j] /= sum);
            let error = entropy - perplexity.ln();
            if error.abs() < 1e-6 {
                break;
            }
            if error > 0.0 {
                low = precision;
                precision = if high.is_finite() {
                    f64::midpoint(low, high)
                } else {
                    precision * 2.0
                };
            } else {
                high = precision;
                precision = f64::midpoint(low, high);
            }
        }
    }
    let all = 2.0 * count as f64;
    let mut both = vec![0.0; count * count];
    for i in 0..count {
        for j in 0..count {
            both[i * count + j] = (near[i * count + j] + near[j * count + i]) / all;
        }
    }
    both
}

/// The first two principal components, scaled down, from the distances (classical scaling).
fn principal(distances: &[f64], count: usize) -> Vec<[f64; 2]> {
    let n = count as f64;
    let means: Vec<f64> = (0..count)
        .map(|i| distances[i * count..(i + 1) * count].iter().sum::<f64>() / n)
        .collect();
    let mean = means.iter().sum::<f64>() / n;
    let products: Vec<f64> = (0..count * count)
        .map(|at| -0.5 * (distances[at] - means[at / count] - means[at % count] + mean))
        .collect();
    let first = leading(&products, count, None);
    let second = leading(&products, count, Some(&first));
    let spread = |vector: &[f64]| {
        let square = vector.iter().map(|v| v * v).sum::<f64>() / n;
        if square > 0.0 {
            INITIAL / square.sqrt()
        } else {
            0.0
        }
    };
    // The second is narrower, as in the data; both get a trace of the points' order, which lets equal
    // points separate.
    let scale = spread(&first);
    (0..count)
        .map(|i| {
            let trace = INITIAL * 1e-3 * (i as f64 / n - 0.5);
            [first[i] * scale + trace, second[i] * scale - trace]
        })
        .collect()
}

/// The leading eigenvector of a symmetric matrix, orthogonal to `other`, with the root of its
/// eigenvalue as length.
fn leading(matrix: &[f64], count: usize, other: Option<&[f64]>) -> Vec<f64> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    // An arbitrary direction.
    let mut vector: Vec<f64> = (0..count).map(|i| ((i + 1) as f64 * 1.7).sin()).collect();
    let mut value = 0.0;
    for _ in 0..100 {
        if let Some(other) = other {
            let length = dot(other, other);
            if length > 0.0 {
                let share = dot(&vector, other) / length;
                vector
                    .iter_mut()
                    .zip(other)
                    .for_each(|(v, o)| *v -= share * o);
            }
        }
        let length = dot(&vector, &vector).sqrt();
        if length < 1e-150 {
            return vec![0.0; count];
        }
        vector.iter_mut().for_each(|v| *v /= length);
        let next: Vec<f64> = matrix
            .chunks_exact(count)
            .map(|row| dot(row, &vector))
            .collect();
        value = dot(&next, &vector);
        vector = next;
    }
    let length = dot(&vector, &vector).sqrt();
    if length < 1e-150 || value <= 0.0 {
        return vec![0.0; count];
    }
    // The sign is arbitrary: make the largest entry positive.
    let largest = vector
        .iter()
        .copied()
        .fold(0.0, |a: f64, b| if b.abs() > a.abs() { b } else { a });
    let scale = value.sqrt() / length * largest.signum();
    vector.iter().map(|v| v * scale).collect()
}

/// Gradient descent with momentum and gains, as in the authors' own code.
fn descend(affinities: &[f64], places: &mut [[f64; 2]]) {
    let count = places.len();
    let rate = (count as f64 / EARLY.1 / 4.0).max(50.0);
    let mut speed = vec![[0.0; 2]; count];
    let mut gains = vec![[1.0f64; 2]; count];
    // Each pair once: row by row below the diagonal.
    let mut kernel = vec![0.0; count * (count - 1) / 2];
    for step in 0..STEPS {
        let (stronger, momentum) = if step < EARLY.0 {
            (EARLY.1, 0.5)
        } else {
            (1.0, 0.8)
        };
        let mut total = 0.0;
        let mut pair = 0;
        for i in 1..count {
            for j in 0..i {
                let (x, y) = (places[i][0] - places[j][0], places[i][1] - places[j][1]);
                let near = 1.0 / (1.0 + x * x + y * y);
                kernel[pair] = near;
                total += 2.0 * near;
                pair += 1;
            }
        }
        let mut gradient = vec![[0.0; 2]; count];
        let mut pair = 0;
        for i in 1..count {
            for j in 0..i {
                let near = kernel[pair];
                let force = 4.0 * (stronger * affinities[i * count + j] - near / total) * near;
                for axis in 0..2 {
                    let pull = force * (places[i][axis] - places[j][axis]);
                    gradient[i][axis] += pull;
                    gradient[j][axis] -= pull;
                }
                pair += 1;
            }
        }
        for i in 0..count {
            for axis in 0..2 {
                let against = gradient[i][axis] * speed[i][axis] < 0.0;
                let gain = gains[i][axis];
                gains[i][axis] = if against {
                    gain + 0.2
                } else {
                    (gain * 0.8).max(0.01)
                };
                speed[i][axis] =
                    momentum * speed[i][axis] - rate * gains[i][axis] * gradient[i][axis];
                places[i][axis] += speed[i][axis];
            }
        }
        for axis in 0..2 {
            let mean = places.iter().map(|place| place[axis]).sum::<f64>() / count as f64;
            places.iter_mut().for_each(|place| place[axis] -= mean);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three clusters of twenty points in five dimensions.
    fn clusters() -> Vec<f32> {
        let mut points = Vec::new();
        for i in 0..60 {
            for axis in 0..5 {
                let center = if axis == i % 3 { 10.0 } else { 0.0 };
                points.push(center + ((i * 7 + axis * 13) as f32).sin());
            }
        }
        points
    }

    #[test]
    fn clusters_stay_separate() {
        let places = embed(&clusters(), 5);
        assert_eq!(places.len(), 60);
        assert!(places.iter().flatten().all(|v| v.is_finite()));
        let away = |a: usize, b: usize| {
            let [x, y] = [0, 1].map(|axis| places[a][axis] - places[b][axis]);
            x.hypot(y)
        };
        for a in 0..60 {
            let nearest = (0..60)
                .filter(|&b| b != a)
                .min_by(|&b, &c| away(a, b).total_cmp(&away(a, c)))
                .unwrap();
            assert_eq!(nearest % 3, a % 3, "{a} {nearest}");
        }
    }

    #[test]
    fn embedding_is_deterministic() {
        assert_eq!(embed(&clusters(), 5), embed(&clusters(), 5));
    }

    #[test]
    fn equal_points_are_embedded_at_finite_places() {
        assert!(embed(&[], 4).is_empty());
        assert_eq!(embed(&[1.0, 2.0], 2).len(), 1);
        for points in [vec![0.0f32; 40], vec![3.5; 12]] {
            let places = embed(&points, 2);
            assert!(places.iter().flatten().all(|v| v.is_finite()), "{places:?}");
        }
    }
}
