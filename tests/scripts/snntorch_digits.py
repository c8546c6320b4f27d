"""A fully-connected SNN on scikit-learn's digits, in snnTorch's tutorial style: explicit state, a module-level loop."""

import snntorch as snn
import torch
import torch.nn as nn
from sklearn.datasets import load_digits
from snntorch import functional as SF
from snntorch import surrogate
from torch.utils.data import DataLoader, TensorDataset

batch_size = 128
num_inputs = 64
num_hidden = 64
num_outputs = 10
num_steps = 8
beta = 0.9
spike_grad = surrogate.fast_sigmoid(slope=25)
dtype = torch.float
device = torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")
torch.manual_seed(0)

digits = load_digits()
data = torch.tensor(digits.data, dtype=dtype) / 16
targets = torch.tensor(digits.target)
train_set = TensorDataset(data[:1400], targets[:1400])
test_set = TensorDataset(data[1400:], targets[1400:])
train_loader = DataLoader(train_set, batch_size=batch_size, shuffle=True, drop_last=True)
test_loader = DataLoader(test_set, batch_size=batch_size, shuffle=False)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(num_inputs, num_hidden)
        self.lif1 = snn.Leaky(beta=beta, spike_grad=spike_grad)
        self.fc2 = nn.Linear(num_hidden, num_outputs)
        self.lif2 = snn.Leaky(beta=beta, spike_grad=spike_grad, learn_beta=True)

    def forward(self, x):
        mem1 = self.lif1.init_leaky()
        mem2 = self.lif2.init_leaky()
        spk2_rec = []
        mem2_rec = []
        for _ in range(num_steps):
            cur1 = self.fc1(x)
            spk1, mem1 = self.lif1(cur1, mem1)
            cur2 = self.fc2(spk1)
            spk2, mem2 = self.lif2(cur2, mem2)
            spk2_rec.append(spk2)
            mem2_rec.append(mem2)
        return torch.stack(spk2_rec, dim=0), torch.stack(mem2_rec, dim=0)


net = Net().to(device)
print(net)
loss_fn = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(net.parameters(), lr=5e-3, betas=(0.9, 0.999))

num_epochs = 3
for epoch in range(num_epochs):
    net.train()
    for i, (batch, labels) in enumerate(train_loader):
        batch = batch.to(device)
        labels = labels.to(device)
        spk_rec, mem_rec = net(batch)
        loss_val = torch.zeros((1), dtype=dtype, device=device)
        for step in range(num_steps):
            loss_val += loss_fn(mem_rec[step], labels)
        optimizer.zero_grad()
        loss_val.backward()
        optimizer.step()
        if epoch == 0 and i == 0:
            print(f"first loss {loss_val.item():.4f}")
    print(f"Epoch {epoch}, train loss {loss_val.item():.2f}")

with torch.no_grad():
    net.eval()
    correct = 0
    for batch, labels in test_loader:
        spk_rec, _ = net(batch.to(device))
        correct += SF.accuracy_rate(spk_rec, labels.to(device)) * labels.size(0)
print(f"Test accuracy: {100 * correct / len(test_loader.dataset):.2f}%")
