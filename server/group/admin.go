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
)

// CreateConsumerGroup implements ConsumerGroupService.
func (s *Service) CreateConsumerGroup(ctx context.Context, req *sluicev1.CreateConsumerGroupRequest) (*sluicev1.CreateConsumerGroupResponse, error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	name := req.GetConsumerGroupId()
	if !validName(name) {
		return nil, apierror.InvalidField("consumer_group_id", "must be 1 to %d letters, digits, \"_\" and \"-\"", maxName)
	}
	group := proto.CloneOf(orNew(req.GetConsumerGroup()))
	if group.GetName() != "" && group.GetName() != name {
		return nil, apierror.InvalidField("consumer_group.name", "must be unset or consumer_group_id")
	}
	group.Name, group.CreateTime, group.UpdateTime = name, nil, nil
	group, err := complete(group)
	if err != nil {
		return nil, err
	}
	s.changes.Lock()
	defer s.changes.Unlock()
	if r, err := s.group(name); err == nil {
		return existing(r.configuration(), group)
	}
	if len(s.all()) >= maxGroups {
		return nil, &apierror.Error{
			Code:     codes.ResourceExhausted,
			Reason:   sluicev1.ErrorReason_ERROR_REASON_TOO_MANY_GROUPS,
			Message:  "the server has as many consumer groups as it takes",
			Metadata: map[string]string{"max_groups": strconv.Itoa(maxGroups)},
		}
	}
	first, err := s.positions.Resolve(ctx, group.GetStart(), "consumer_group.start")
	if err != nil {
		return nil, err
	}
	group.CreateTime = timestamppb.Now()
	group.UpdateTime = group.GetCreateTime()
	e := entry{group: group, incarnation: newIncarnation(), first: first}
	if err := s.catalog.set(context.WithoutCancel(ctx), e); err != nil {
		return nil, err
	}
	s.add(e)
	s.tidy(ctx)
	return &sluicev1.CreateConsumerGroupResponse{ConsumerGroup: group}, nil
}

// existing returns the group that is there when it was created just as wanted
// is, and has not changed since.
func existing(is, wanted *sluicev1.ConsumerGroup) (*sluicev1.CreateConsumerGroupResponse, error) {
	plain := proto.CloneOf(is)
	plain.CreateTime, plain.UpdateTime = nil, nil
	if proto.Equal(plain, wanted) && proto.Equal(is.GetCreateTime(), is.GetUpdateTime()) {
		return &sluicev1.CreateConsumerGroupResponse{ConsumerGroup: is}, nil
	}
	return nil, &apierror.Error{
		Code:     codes.AlreadyExists,
		Reason:   sluicev1.ErrorReason_ERROR_REASON_GROUP_EXISTS,
		Message:  "there is a consumer group of that name",
		Metadata: map[string]string{"group": is.GetName()},
	}
}

// tidy keeps the catalog small.
func (s *Service) tidy(ctx context.Context) {
	if err := s.catalog.compact(context.WithoutCancel(ctx)); err != nil {
		s.logger.Warn("the catalog of consumer groups could not be compacted", "err", err)
	}
}

// GetConsumerGroup implements ConsumerGroupService.
func (s *Service) GetConsumerGroup(_ context.Context, req *sluicev1.GetConsumerGroupRequest) (*sluicev1.GetConsumerGroupResponse, error) {
	r, err := s.group(req.GetConsumerGroupId())
	if err != nil {
		return nil, err
	}
	return &sluicev1.GetConsumerGroupResponse{ConsumerGroup: r.configuration()}, nil
}

// ListConsumerGroups implements ConsumerGroupService.
func (s *Service) ListConsumerGroups(_ context.Context, req *sluicev1.ListConsumerGroupsRequest) (*sluicev1.ListConsumerGroupsResponse, error) {
	if err := s.usable(); err != nil {
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
	s.changes.Lock()
	defer s.changes.Unlock()
	r, err := s.group(req.GetConsumerGroupId())
	if err != nil {
		return nil, err
	}
	if req.GetConsumerGroup() == nil {
		return nil, apierror.InvalidField("consumer_group", "must be set")
	}
	group, err := update(r.configuration(), req)
	if err != nil {
		return nil, err
	}
	if group, err = complete(group); err != nil {
		return nil, err
	}
	group.UpdateTime = timestamppb.Now()
	ctx = context.WithoutCancel(ctx) // once it is in the catalog it is to take effect
	if err := s.catalog.set(ctx, entry{group: group, incarnation: r.incarnation, first: r.first}); err != nil {
		return nil, err
	}
	r.setConfiguration(group)
	s.tidy(ctx)
	// When this fails, the group takes it over as soon as it goes on.
	if err := r.call(ctx, func(c *core) error { return c.configure(c.ctx, group) }); err != nil {
		return nil, err
	}
	return &sluicev1.UpdateConsumerGroupResponse{ConsumerGroup: group}, nil
}

// DeleteConsumerGroup implements ConsumerGroupService.
func (s *Service) DeleteConsumerGroup(ctx context.Context, req *sluicev1.DeleteConsumerGroupRequest) (*sluicev1.DeleteConsumerGroupResponse, error) {
	s.changes.Lock()
	defer s.changes.Unlock()
	r, err := s.group(req.GetConsumerGroupId())
	if err != nil {
		return nil, err
	}
	ctx = context.WithoutCancel(ctx)
	if err := s.catalog.delete(ctx, r.incarnation); err != nil {
		return nil, err
	}
	s.remove(r.name)
	// It is deleted. Should its log stay, the next start removes it.
	if err := s.catalog.bury(ctx, r.incarnation); err != nil {
		s.logger.Warn("the log of a deleted consumer group could not be removed yet", "group", r.name, "err", err)
	}
	s.tidy(ctx)
	return &sluicev1.DeleteConsumerGroupResponse{}, nil
}
