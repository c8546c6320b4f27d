"""A small convolutional SNN on scikit-learn's digits, in SpikingJelly's tutorial style."""

import argparse
import time

import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch.utils.data import DataLoader, TensorDataset


class CSNN(nn.Module):
    def __init__(self, T: int, channels: int):
        super().__init__()
        self.T = T
        self.conv_fc = nn.Sequential(
            layer.Conv2d(1, channels, kernel_size=3, padding=1, bias=False),
            layer.BatchNorm2d(channels),
            neuron.IFNode(surrogate_function=surrogate.ATan()),
            layer.MaxPool2d(2, 2),
            layer.Flatten(),
            layer.Linear(channels * 4 * 4, 64, bias=False),
            neuron.LIFNode(tau=2.0, surrogate_function=surrogate.ATan(), detach_reset=True),
            layer.Linear(64, 10, bias=False),
            neuron.LIFNode(tau=2.0, surrogate_function=surrogate.ATan(), detach_reset=True),
        )
        functional.set_step_mode(self, step_mode="m")

    def forward(self, x: torch.Tensor):
        x_seq = x.unsqueeze(0).repeat(self.T, 1, 1, 1, 1)  # [N, C, H, W] -> [T, N, C, H, W]
        return self.conv_fc(x_seq).mean(0)


def main():
    parser = argparse.ArgumentParser(description="Classify Digits")
    parser.add_argument("-T", default=4, type=int, help="simulating time-steps")
    parser.add_argument("-device", default="cpu", help="device")
    parser.add_argument("-b", default=64, type=int, help="batch size")
    parser.add_argument("-epochs", default=2, type=int, metavar="N", help="number of total epochs to run")
    parser.add_argument("-lr", default=5e-3, type=float, help="learning rate")
    parser.add_argument("-channels", default=8, type=int, help="channels of CSNN")
    args = parser.parse_args()
    print(args)

    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target)
    train_set = TensorDataset(images[:1400], labels[:1400])
    test_set = TensorDataset(images[1400:], labels[1400:])
    train_data_loader = DataLoader(train_set, batch_size=args.b, shuffle=True, drop_last=True)
    test_data_loader = DataLoader(test_set, batch_size=args.b, shuffle=False)

    net = CSNN(T=args.T, channels=args.channels)
    print(net)
    net.to(args.device)
    spiking = [m for m in net.modules() if isinstance(m, (neuron.IFNode, neuron.LIFNode))]
    print(f"spiking layers: {len(spiking)}")

    optimizer = torch.optim.Adam(net.parameters(), lr=args.lr)
    lr_scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs)
    max_test_acc = -1.0
    for epoch in range(args.epochs):
        start_time = time.time()
        net.train()
        train_loss = 0.0
        train_acc = 0.0
        train_samples = 0
        for img, label in train_data_loader:
            optimizer.zero_grad()
            img = img.to(args.device)
            label = label.to(args.device)
            out_fr = net(img)
            loss = F.mse_loss(out_fr, F.one_hot(label, 10).float())
            loss.backward()
            optimizer.step()
            train_samples += label.numel()
            train_loss += loss.item() * label.numel()
            train_acc += (out_fr.argmax(1) == label).float().sum().item()
            functional.reset_net(net)
        lr_scheduler.step()

        net.eval()
        test_acc = 0.0
        test_samples = 0
        with torch.no_grad():
            for img, label in test_data_loader:
                out_fr = net(img.to(args.device))
                test_samples += label.numel()
                test_acc += (out_fr.argmax(1) == label.to(args.device)).float().sum().item()
                functional.reset_net(net)
        test_acc /= test_samples
        max_test_acc = max(max_test_acc, test_acc)
        print(
            f"epoch = {epoch}, train_loss = {train_loss / train_samples:.4f}, "
            f"train_acc = {train_acc / train_samples:.4f}, test_acc = {test_acc:.4f}, "
            f"max_test_acc = {max_test_acc:.4f}, time = {time.time() - start_time:.1f}s"
        )


if __name__ == "__main__":
    main()
