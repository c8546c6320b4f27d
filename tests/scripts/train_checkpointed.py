"""Train a spiking VGG-like classifier on scikit-learn's digits; argparse options, checkpoints and resuming."""

import argparse
import os
import random
from functools import partial

import numpy as np
import torch
import torch.nn as nn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from spikingjelly.activation_based import functional, layer, surrogate
from spikingjelly.activation_based.neuron import LIFNode, ParametricLIFNode

NEURONS = {"lif": LIFNode, "plif": ParametricLIFNode}


def parse_args():
    parser = argparse.ArgumentParser(description="SNN training with checkpoints")
    parser.add_argument("--neuron", choices=sorted(NEURONS), default="lif")
    parser.add_argument("--epochs", default=2, type=int)
    parser.add_argument("--batch-size", default=100, type=int)
    parser.add_argument("--lr", default=0.02, type=float)
    parser.add_argument("--T", default=4, type=int)
    parser.add_argument("--output-dir", default="./logs")
    parser.add_argument("--resume", default="", help="resume from a checkpoint")
    parser.add_argument("--weights", default="", help="start from the weights of a checkpoint")
    parser.add_argument("--test-only", action="store_true")
    parser.add_argument("--seed", default=2020, type=int)
    return parser.parse_args()


class ConvBlock(nn.Sequential):
    def __init__(self, in_channels, out_channels, neuron_fn):
        super().__init__(
            layer.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            layer.BatchNorm2d(out_channels),
            neuron_fn(),
            layer.AvgPool2d(2, 2),
        )


class SpikingVGG(nn.Module):
    def __init__(self, neuron_fn=LIFNode, num_classes=10):
        super().__init__()
        self.features = nn.Sequential(ConvBlock(1, 16, neuron_fn), ConvBlock(16, 16, neuron_fn))
        self.classifier = nn.Sequential(layer.Flatten(), layer.Linear(64, num_classes))

    def forward(self, x):
        return self.classifier(self.features(x))


def load_data():
    digits = load_digits()
    images = digits.images[:, None].astype("float32") / 16
    parts = train_test_split(images, digits.target, test_size=300, random_state=0)
    return [torch.from_numpy(np.asarray(part)) for part in parts]


@torch.no_grad()
def evaluate(model, images, labels, T):
    model.eval()
    out = model(images.unsqueeze(0).repeat(T, 1, 1, 1, 1)).mean(0)
    functional.reset_net(model)
    return (out.argmax(1) == labels).float().mean().item()


def main(args):
    random.seed(args.seed)
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)
    os.makedirs(args.output_dir, exist_ok=True)

    neuron_fn = partial(NEURONS[args.neuron], surrogate_function=surrogate.ATan(), detach_reset=True)
    model = SpikingVGG(neuron_fn=neuron_fn)
    functional.set_step_mode(model, "m")
    print(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.01)
    criterion = nn.CrossEntropyLoss()
    start_epoch = 0
    if args.weights:
        print(model.load_state_dict(torch.load(args.weights, map_location="cpu")["model"]))
    if args.resume:
        checkpoint = torch.load(args.resume, map_location="cpu")
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        start_epoch = checkpoint["epoch"] + 1
        print(f"resumed at epoch {start_epoch}")

    train_images, test_images, train_labels, test_labels = load_data()
    print(f"Start accuracy {evaluate(model, test_images, test_labels, args.T):.4f}")
    if args.test_only:
        return
    for epoch in range(start_epoch, args.epochs):
        model.train()
        order = torch.randperm(len(train_images))
        for index in order.split(args.batch_size):
            x_seq = train_images[index].unsqueeze(0).repeat(args.T, 1, 1, 1, 1)
            loss = criterion(model(x_seq).mean(0), train_labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            functional.reset_net(model)
        accuracy = evaluate(model, test_images, test_labels, args.T)
        print(f"Epoch {epoch} loss {loss.item():.4f} test accuracy {accuracy:.4f}")
        checkpoint = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "epoch": epoch,
            "args": vars(args),
        }
        torch.save(checkpoint, os.path.join(args.output_dir, "checkpoint_latest.pth"))
        torch.save(model, os.path.join(args.output_dir, "model.pth"))


if __name__ == "__main__":
    main(parse_args())
