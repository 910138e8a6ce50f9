package group

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/subscription"
)

// CreateConsumerGroup implements ConsumerGroupService.
func (s *Service) CreateConsumerGroup(ctx context.Context, req *sluicev1.CreateConsumerGroupRequest) (*sluicev1.CreateConsumerGroupResponse, error) {
	name := req.GetConsumerGroupId()
	if !validName(name) {
		return nil, apierror.InvalidField("consumer_group_id", "must be 1 to %d letters, digits, \"_\" and \"-\"", maxName)
	}
	group := proto.CloneOf(orNew(req.GetConsumerGroup()))
	if group.GetName() != "" && group.GetName() != name {
		return nil, apierror.InvalidField("consumer_group.name", "must be unset or consumer_group_id")
	}
	group.Name, group.CreateTime, group.UpdateTime = name, nil, nil
	group.PauseReason = sluicev1.PauseReason_PAUSE_REASON_UNSPECIFIED
	group, err := complete(group)
	if err != nil {
		return nil, err
	}
	err = s.change(ctx, func() error {
		group, err = s.create(ctx, group)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &sluicev1.CreateConsumerGroupResponse{ConsumerGroup: group}, nil
}

// create stores a group that is complete and returns it as it is stored, or the
// one that is there. s.changes is held.
func (s *Service) create(ctx context.Context, wanted *sluicev1.ConsumerGroup) (*sluicev1.ConsumerGroup, error) {
	if e, ok := s.catalog.named(wanted.GetName()); ok {
		return existing(e.group, wanted)
	}
	if len(s.catalog.groups) >= maxGroups {
		return wanted, &apierror.Error{
			Code:     codes.ResourceExhausted,
			Reason:   sluicev1.ErrorReason_ERROR_REASON_TOO_MANY_GROUPS,
			Message:  "the server has as many consumer groups as it takes",
			Metadata: map[string]string{"max_groups": strconv.Itoa(maxGroups)},
		}
	}
	first, err := s.positions.Resolve(ctx, wanted.GetStart(), "consumer_group.start")
	if err != nil {
		return wanted, err
	}
	group := proto.CloneOf(wanted)
	group.CreateTime = timestamppb.Now()
	group.UpdateTime = group.GetCreateTime()
	err = s.catalog.set(context.WithoutCancel(ctx), entry{group: group, incarnation: newIncarnation(), first: first, epoch: s.events.Epoch()})
	if err != nil {
		return wanted, err
	}
	return group, nil
}

// existing returns the group that is there when it was created just as wanted
// is, and has not changed since.
func existing(is, wanted *sluicev1.ConsumerGroup) (*sluicev1.ConsumerGroup, error) {
	plain := proto.CloneOf(is)
	plain.CreateTime, plain.UpdateTime = nil, nil
	if proto.Equal(plain, wanted) && proto.Equal(is.GetCreateTime(), is.GetUpdateTime()) {
		return is, nil
	}
	return wanted, &apierror.Error{
		Code:     codes.AlreadyExists,
		Reason:   sluicev1.ErrorReason_ERROR_REASON_GROUP_EXISTS,
		Message:  "there is a consumer group of that name",
		Metadata: map[string]string{"group": is.GetName()},
	}
}

// GetConsumerGroup implements ConsumerGroupService.
func (s *Service) GetConsumerGroup(ctx context.Context, req *sluicev1.GetConsumerGroupRequest) (*sluicev1.GetConsumerGroupResponse, error) {
	if err := s.refresh(ctx); err != nil {
		return nil, err
	}
	r, err := s.group(ctx, req.GetConsumerGroupId())
	if err != nil {
		return nil, err
	}
	return &sluicev1.GetConsumerGroupResponse{ConsumerGroup: r.configuration()}, nil
}

// ListConsumerGroups implements ConsumerGroupService.
func (s *Service) ListConsumerGroups(ctx context.Context, req *sluicev1.ListConsumerGroupsRequest) (*sluicev1.ListConsumerGroupsResponse, error) {
	if err := s.refresh(ctx); err != nil {
		return nil, err
	}
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	b := bindingOf("groups")
	last, err := b.last(req.GetPageToken())
	if err != nil {
		return nil, err
	}
	var groups []*sluicev1.ConsumerGroup
	for _, r := range s.all() {
		if r.name > last {
			groups = append(groups, r.configuration())
		}
	}
	slices.SortFunc(groups, func(a, b *sluicev1.ConsumerGroup) int { return strings.Compare(a.GetName(), b.GetName()) })
	res := &sluicev1.ListConsumerGroupsResponse{ConsumerGroups: groups}
	if len(groups) > size {
		res.ConsumerGroups = groups[:size]
		res.NextPageToken = b.token(groups[size-1].GetName())
	}
	return res, nil
}

// UpdateConsumerGroup implements ConsumerGroupService.
func (s *Service) UpdateConsumerGroup(ctx context.Context, req *sluicev1.UpdateConsumerGroupRequest) (*sluicev1.UpdateConsumerGroupResponse, error) {
	r, err := s.group(ctx, req.GetConsumerGroupId())
	if err != nil {
		return nil, err
	}
	if req.GetConsumerGroup() == nil {
		return nil, apierror.InvalidField("consumer_group", "must be set")
	}
	if !r.leads() { // it is to take effect
		return nil, r.noLeader()
	}
	var group *sluicev1.ConsumerGroup
	ctx = context.WithoutCancel(ctx) // once it is in the catalog it is to take effect
	err = s.change(ctx, func() error {
		e, ok := s.catalog.groups[r.incarnation]
		if !ok {
			return notFound(r.name)
		}
		if e.group, err = update(e.group, req); err != nil {
			return err
		}
		if e.group, err = complete(e.group); err != nil {
			return err
		}
		e.group.UpdateTime = timestamppb.Now()
		group = e.group
		return s.catalog.set(ctx, e)
	})
	if err != nil {
		return nil, err
	}
	// When this fails, the group takes it over as soon as it goes on.
	if err := r.reconfigure(ctx); err != nil {
		return nil, err
	}
	if held(r.configuration()) && !held(group) { // meanwhile, because of what this has changed
		return nil, subscription.ErrTooExpensive
	}
	return &sluicev1.UpdateConsumerGroupResponse{ConsumerGroup: group}, nil
}

// DeleteConsumerGroup implements ConsumerGroupService.
func (s *Service) DeleteConsumerGroup(ctx context.Context, req *sluicev1.DeleteConsumerGroupRequest) (*sluicev1.DeleteConsumerGroupResponse, error) {
	err := s.change(ctx, func() error {
		e, ok := s.catalog.named(req.GetConsumerGroupId())
		if !ok {
			return notFound(req.GetConsumerGroupId())
		}
		return s.catalog.delete(context.WithoutCancel(ctx), e.incarnation)
	})
	if err != nil {
		return nil, err
	}
	return &sluicev1.DeleteConsumerGroupResponse{}, nil
}
