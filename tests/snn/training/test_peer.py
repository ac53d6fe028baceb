"""The same network trained in snnTorch: the same weights, batches and optimiser give the same losses and accuracy."""

import warnings

import torch
from torch import Tensor, nn

from snn.laws import Gaussian
from snn.training.local import deal, take_steps
from snn.training.objective import Head, Objective
from snn.training.rules import at_rest
from snn.training.spec import TrainingSpec
from snn.training.surrogate import Surrogate
from spikeloom.tasks.sequences import first_last_xor

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    import snntorch

STEPS, BATCH, NEURONS = 60, 32, 48


class Peer(nn.Module):
    def __init__(self, weights: Tensor, leak: float) -> None:
        super().__init__()
        self.hidden, self.readout = nn.Linear(1, NEURONS), nn.Linear(NEURONS, 2)
        self.neurons = snntorch.Leaky(beta=leak, threshold=1.0, spike_grad=snntorch.surrogate.fast_sigmoid(25))
        with torch.no_grad():
            self.hidden.weight.copy_(weights.T)
            self.hidden.bias.fill_(1 - leak)  # our membrane is centred at the threshold (docs/conventions.md)
            self.readout.weight.zero_()
            self.readout.bias.zero_()

    def forward(self, inputs: Tensor) -> Tensor:
        membranes = self.neurons.reset_mem()
        for t in range(inputs.shape[1]):
            fired, membranes = self.neurons(self.hidden(inputs[:, t]), membranes)
        return self.readout(fired)


def test_training_is_snntorchs() -> None:
    data = first_last_xor(256, 4, seed=0)
    inputs, classes = torch.tensor(data.inputs).float(), torch.tensor(data.targets)
    network = Gaussian(leak=0.75).sample(0, range(NEURONS), 4, 1)
    order = deal(256, STEPS, BATCH, 5)

    training = TrainingSpec(rounds=STEPS, local_steps=1, learning_rate=0.01, decay="none")
    objective = Objective(network, 2, (Head("multinomial", slice(0, 2)),), Surrogate("fast_sigmoid", 25))
    theta, one_hot = objective.initial(), torch.eye(2)[classes]
    moments, ours = at_rest(theta), []
    for done, rows in enumerate(order):
        steps = take_steps(objective, training, theta, moments, inputs, one_hot, rows[None], done)
        theta, moments = steps.theta, steps.moments
        ours.append(steps.loss)

    peer, theirs = Peer(network[0].weights, 0.75), []
    optimiser = torch.optim.Adam(peer.parameters(), lr=0.01)
    for rows in torch.from_numpy(order):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(peer(inputs[rows]), classes[rows])
        loss.backward()
        optimiser.step()
        theirs.append(loss.item())

    torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), rtol=1e-2, atol=1e-2)
    assert ours[-1] < 0.9 * ours[0]
    with torch.no_grad():
        right = [
            (scores.argmax(1) == classes).float().mean() for scores in (objective.scores(theta, inputs), peer(inputs))
        ]
    assert abs(right[0] - right[1]) < 0.03
